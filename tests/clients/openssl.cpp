// SPDX-License-Identifier: Apache-2.0
//
// OpenSSL's BIOs on blocking sockets; and its error queue, which it keys by the thread.
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <unistd.h>

#include <memory>
#include <string>

#include <tendril/fiber.hpp>

#include "clients/crowd.hpp"
#include "clients/servers.hpp"

using namespace tendril::test;

namespace {

struct release {
  void operator()(BIO* b) const { BIO_free_all(b); }
  void operator()(SSL_CTX* c) const { SSL_CTX_free(c); }
};
using bio = std::unique_ptr<BIO, release>;

SSL_CTX* contexts() {
  static const std::unique_ptr<SSL_CTX, release> one = [] {
    std::unique_ptr<SSL_CTX, release> c(SSL_CTX_new(TLS_client_method()));
    const std::string file = server_setting("NGINX_DIR") + "/certificate.pem";
    require(SSL_CTX_load_verify_locations(c.get(), file.c_str(), nullptr) == 1, "certificate");
    SSL_CTX_set_verify(c.get(), SSL_VERIFY_PEER, nullptr);
    return c;
  }();
  return one.get();
}

std::string last_error() {
  char text[256];
  ERR_error_string_n(ERR_get_error(), text, sizeof text);
  return text;
}

}  // namespace

TEST_SUITE_BEGIN("openssl");

TEST_CASE("requests through an SSL BIO") {
  each_crowd([](crowd& c) {
    c.run(100, [](int) {
      const bio b(BIO_new_ssl_connect(contexts()));
      const std::string host = "127.0.0.1:" + server_setting("NGINX_TLS_PORT");
      BIO_set_conn_hostname(b.get(), host.c_str());
      require(BIO_do_connect(b.get()) == 1, last_error());
      require(BIO_do_handshake(b.get()) == 1, last_error());
      const std::string request =
          "GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
      require(BIO_write(b.get(), request.data(), static_cast<int>(request.size())) ==
                  static_cast<int>(request.size()),
              last_error());
      std::size_t total = 0;
      char part[16384];
      for (int n = 0; (n = BIO_read(b.get(), part, sizeof part)) > 0;)
        total += static_cast<std::size_t>(n);
      require(total > std::size_t{1} << 20, std::to_string(total) + " bytes");
    });
  });
}

// The queue belongs to the thread: a fiber that waits inside a call that is intercepted is on the same one afterwards,
// and finds what it left there, unless others of that thread have cleared it meanwhile. So it asks right after the call
// that failed, as everybody does.
TEST_CASE("errors are found on the thread that made them, also after waits") {
  each_crowd([](crowd& c) {
    c.run(50, [](int) {
      int ends[2];
      require(::pipe(ends) == 0, "pipe");
      for (int k = 0; k != 20; ++k) {
        const pid_t before = ::gettid();
        tendril::fiber writer([&] { require(::write(ends[1], "x", 1) == 1, "write"); });
        char x = 0;
        require(::read(ends[0], &x, 1) == 1, "read");  // waits, inside of libc's function
        require(::gettid() == before, "another thread");
        writer.join();
        ERR_clear_error();
        require(BIO_new_file("/does/not/exist", "r") == nullptr, "a file that does not exist");
        require(ERR_GET_LIB(ERR_peek_error()) == ERR_LIB_SYS, "not the system's error");
        ERR_clear_error();
      }
      ::close(ends[0]);
      ::close(ends[1]);
    });
  });
}

TEST_SUITE_END();
