// SPDX-License-Identifier: Apache-2.0
//
// libcurl's easy interface, as it comes: HTTP and HTTPS, names resolved by the library's threads.
#include <curl/curl.h>

#include <memory>
#include <string>
#include <vector>

#include <tendril/fiber.hpp>

#include "clients/crowd.hpp"
#include "clients/restart.hpp"
#include "clients/servers.hpp"

using namespace tendril::test;

namespace {

struct clean_up {
  void operator()(CURL* c) const { curl_easy_cleanup(c); }
};
using handle = std::unique_ptr<CURL, clean_up>;

struct global {
  global() { curl_global_init(CURL_GLOBAL_DEFAULT); }
  ~global() { curl_global_cleanup(); }
};

std::size_t append(char* data, std::size_t size, std::size_t count, void* to) {
  static_cast<std::string*>(to)->append(data, size * count);
  return size * count;
}

handle new_handle(std::string& body) {
  static const global once;
  handle c(curl_easy_init());
  require(c != nullptr, "curl_easy_init");
  curl_easy_setopt(c.get(), CURLOPT_WRITEFUNCTION, append);
  curl_easy_setopt(c.get(), CURLOPT_WRITEDATA, &body);
  curl_easy_setopt(c.get(), CURLOPT_NOPROXY, "*");
  curl_easy_setopt(c.get(), CURLOPT_NOSIGNAL, 1L);  // as every program with threads must
  const std::string certificate = server_setting("NGINX_DIR") + "/certificate.pem";
  curl_easy_setopt(c.get(), CURLOPT_CAINFO, certificate.c_str());
  return c;
}

std::string plain(const std::string& host, const char* path) {
  return "http://" + host + ":" + std::to_string(server_port("NGINX")) + path;
}
std::string secure(const std::string& host, const char* path) {
  return "https://" + host + ":" + server_setting("NGINX_TLS_PORT") + path;
}

std::string get(CURL* c, std::string& body, const std::string& url) {
  body.clear();
  curl_easy_setopt(c, CURLOPT_URL, url.c_str());
  const CURLcode code = curl_easy_perform(c);
  require(code == CURLE_OK, url + ": " + curl_easy_strerror(code));
  long status = 0;
  curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
  require(status == 200, url + ": " + std::to_string(status));
  return body;
}

const char* const small_body = "sixteen bytes..\n";

bool is_large(const std::string& body) {
  if (body.size() != std::size_t{1} << 20) return false;
  for (std::size_t i = 0; i != body.size(); ++i)
    if (static_cast<unsigned char>(body[i]) != i * 31 % 251) return false;
  return true;
}

}  // namespace

TEST_SUITE_BEGIN("libcurl");

TEST_CASE("HTTP") {
  each_crowd([](crowd& c) {
    c.run(thousand, [](int) {
      std::string body;
      const handle curl = new_handle(body);
      for (int k = 0; k != 5; ++k)
        require(get(curl.get(), body, plain("127.0.0.1", "/small")) == small_body, body);
    });
  });
}

TEST_CASE("HTTPS") {
  each_crowd([](crowd& c) {
    c.run(100, [](int) {
      std::string body;
      const handle curl = new_handle(body);
      for (int k = 0; k != 5; ++k)
        require(get(curl.get(), body, secure("127.0.0.1", "/small")) == small_body, body);
      require(is_large(get(curl.get(), body, secure("127.0.0.1", "/large"))), "/large");
    });
  });
}

TEST_CASE("a name that the library's own thread resolves") {
  each_crowd([](crowd& c) {
    c.run(100, [](int) {
      std::string body;
      const handle curl = new_handle(body);
      curl_easy_setopt(curl.get(), CURLOPT_IPRESOLVE, static_cast<long>(CURL_IPRESOLVE_V4));
      require(get(curl.get(), body, plain("localhost", "/small")) == small_body, body);
      require(get(curl.get(), body, secure("localhost", "/small")) == small_body, body);
    });
  });
}

TEST_CASE("large bodies") {
  each_crowd([](crowd& c) {
    c.run(50, [](int) {
      std::string body;
      const handle curl = new_handle(body);
      require(is_large(get(curl.get(), body, plain("127.0.0.1", "/large"))), "/large");
    });
  });
}

TEST_CASE("a second each, all at once") {
  each_crowd([](crowd& c) {
    meeting waiting;
    c.run(thousand, [&](int) {
      std::string body;
      const handle curl = new_handle(body);
      const meeting::visit here(waiting);
      require(get(curl.get(), body, plain("127.0.0.1", "/slow")) == std::string(2000, 's'),
              "/slow");
    });
    CHECK(waiting.most() == thousand);
  });
}

TEST_CASE("timeouts are the library's own") {
  each_crowd([](crowd& c) {
    c.run(100, [](int) {
      std::string body;
      const handle curl = new_handle(body);
      curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT_MS, 100L);
      const std::string url = plain("127.0.0.1", "/slow");
      curl_easy_setopt(curl.get(), CURLOPT_URL, url.c_str());
      const CURLcode code = curl_easy_perform(curl.get());
      require(code == CURLE_OPERATION_TIMEDOUT, curl_easy_strerror(code));
    });
  });
}

TEST_CASE("the server is killed and comes back") {
  struct client {
    std::string body;
    handle curl = new_handle(body);
    bool fetch(int i) {
      const std::string url = plain("127.0.0.1", i % 2 == 0 ? "/small" : "/slow");
      curl_easy_setopt(curl.get(), CURLOPT_URL, url.c_str());
      body.clear();
      return curl_easy_perform(curl.get()) == CURLE_OK;
    }
  };
  // The same handle before and after, with the connections that it keeps.
  std::vector<std::unique_ptr<client>> clients(thousand / 10);
  while_restarting(
      "nginx", thousand / 10,
      [&](int i, const restart& r) {
        auto& mine = clients[static_cast<std::size_t>(i)];
        mine = std::make_unique<client>();
        r.begun();
        // The library connects anew by itself: who is slow notices nothing.
        while (!r.is_over() && mine->fetch(i)) {
        }
      },
      [&](int i) {
        client& mine = *clients[static_cast<std::size_t>(i)];
        if (!mine.fetch(i)) return false;
        require(mine.body.size() == (i % 2 == 0 ? 16 : 2000),
                "a body of " + std::to_string(mine.body.size()));
        return true;
      });
}

TEST_SUITE_END();
