// SPDX-License-Identifier: Apache-2.0
//
// Names: libc's resolver asked about hosts that need no server, libresolv and c-ares asked by name server.
#include <ares.h>
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <sys/select.h>

#include <cstring>
#include <string>

#include "clients/crowd.hpp"
#include "clients/servers.hpp"

using namespace tendril::test;

namespace {

const char* const address = "10.1.2.3";  // what dnsmasq says of *.example.test

/// One of the names that dnsmasq knows.
std::string name_of(int i) {
  std::string name("n");
  name += std::to_string(i);
  name += ".example.test";
  return name;
}

struct looked_up {
  bool done = false;
  std::string text;
};

void found(void* to, int status, int, ares_addrinfo* info) {
  auto& l = *static_cast<looked_up*>(to);
  l.done = true;
  if (status != ARES_SUCCESS) {
    l.text = ares_strerror(status);
    return;
  }
  char text[INET_ADDRSTRLEN] = "";
  if (info->nodes != nullptr && info->nodes->ai_family == AF_INET)
    ::inet_ntop(AF_INET, &reinterpret_cast<sockaddr_in*>(info->nodes->ai_addr)->sin_addr, text,
                sizeof text);
  l.text = text;
  ares_freeaddrinfo(info);
}

}  // namespace

TEST_SUITE_BEGIN("resolver");

TEST_CASE("getaddrinfo, gethostbyname, getnameinfo") {
  each_crowd([](crowd& c) {
    c.run(100, [](int) {
      addrinfo hints{};
      hints.ai_family = AF_INET;
      hints.ai_socktype = SOCK_STREAM;
      addrinfo* all = nullptr;
      int code = ::getaddrinfo("localhost", "80", &hints, &all);
      require(code == 0, ::gai_strerror(code));
      char host[NI_MAXHOST];
      code = ::getnameinfo(all->ai_addr, all->ai_addrlen, host, sizeof host, nullptr, 0, 0);
      ::freeaddrinfo(all);
      require(code == 0, ::gai_strerror(code));
      require(std::strcmp(host, "localhost") == 0, host);
      hints.ai_flags = AI_NUMERICHOST;
      code = ::getaddrinfo("localhost", "80", &hints, &all);
      require(code == EAI_NONAME, "a name where a number must be");

      hostent result{};
      hostent* found_host = nullptr;
      char buffer[1024];
      int error = 0;
      require(::gethostbyname_r("localhost", &result, buffer, sizeof buffer, &found_host, &error) ==
                      0 &&
                  found_host != nullptr,
              "gethostbyname_r");
    });
  });
}

TEST_CASE("libresolv asks a name server") {
  each_crowd([](crowd& c) {
    c.run(100, [](int i) {
      struct __res_state state {};
      require(::res_ninit(&state) == 0, "res_ninit");
      state.nscount = 1;
      state.nsaddr_list[0] = {};
      state.nsaddr_list[0].sin_family = AF_INET;
      state.nsaddr_list[0].sin_port = htons(static_cast<std::uint16_t>(server_port("DNSMASQ")));
      state.nsaddr_list[0].sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      const std::string name = name_of(i);
      unsigned char answer[512];
      const int length = ::res_nquery(&state, name.c_str(), ns_c_in, ns_t_a, answer, sizeof answer);
      const std::string error = length < 0 ? ::hstrerror(state.res_h_errno) : "";
      ::res_nclose(&state);
      require(length > 0, "res_nquery: " + error);
      ns_msg message;
      ns_rr record;
      require(::ns_initparse(answer, length, &message) == 0 &&
                  ::ns_parserr(&message, ns_s_an, 0, &record) == 0,
              "the answer");
      char text[INET_ADDRSTRLEN];
      require(
          std::strcmp(::inet_ntop(AF_INET, ns_rr_rdata(record), text, sizeof text), address) == 0,
          text);
    });
  });
}

TEST_CASE("c-ares asks a name server") {
  each_crowd([](crowd& c) {
    ares_library_init(ARES_LIB_INIT_ALL);
    c.run(100, [](int i) {
      ares_channel channel = nullptr;
      require(ares_init(&channel) == ARES_SUCCESS, "ares_init");
      const std::string server = "127.0.0.1:" + std::to_string(server_port("DNSMASQ"));
      require(ares_set_servers_ports_csv(channel, server.c_str()) == ARES_SUCCESS, "servers");
      looked_up result;
      ares_addrinfo_hints hints{};
      hints.ai_family = AF_INET;
      ares_getaddrinfo(channel, name_of(i).c_str(), nullptr, &hints, found, &result);
      while (!result.done) {
        fd_set reading, writing;
        FD_ZERO(&reading);
        FD_ZERO(&writing);
        const int count = ares_fds(channel, &reading, &writing);
        timeval left{};
        ::select(count, &reading, &writing, nullptr, ares_timeout(channel, nullptr, &left));
        ares_process(channel, &reading, &writing);
      }
      ares_destroy(channel);
      require(result.text == address, result.text);
    });
    ares_library_cleanup();
  });
}

TEST_SUITE_END();
