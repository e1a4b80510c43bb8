// SPDX-License-Identifier: Apache-2.0
//
// Calls that libraries make: loaded at run time, compiled by others.
#include "intercept/intercepted.hpp"

#include <dlfcn.h>
#include <poll.h>

using namespace tendril;
using test::intercepted;

TEST_SUITE("libraries") {
  TEST_CASE("a library that is loaded on a fiber, and whose calls are checked ones") {
    intercepted(
        [] {
          void* const library = dlopen(INTERCEPT_PLUGIN, RTLD_NOW);
          if (library == nullptr) return std::string(dlerror());
          const auto plugin_read =
              reinterpret_cast<ssize_t (*)(int, char*, size_t)>(dlsym(library, "plugin_read"));
          const auto plugin_recv =
              reinterpret_cast<ssize_t (*)(int, char*, size_t)>(dlsym(library, "plugin_recv"));
          const auto plugin_poll =
              reinterpret_cast<int (*)(int, nfds_t)>(dlsym(library, "plugin_poll"));
          test::socket_pair ends(SOCK_DGRAM);
          std::string seen;
          fiber reader([&] {
            char text[64];
            const auto add = [&](ssize_t n) {
              seen.append(text, n > 0 ? static_cast<std::size_t>(n) : 0).append(" ");
            };
            add(plugin_read(ends.here(), text, sizeof text));
            add(plugin_recv(ends.here(), text, sizeof text));
            seen += plugin_poll(ends.here(), 2) == 1 ? "polled" : "?";
          });
          fiber writer([&] {
            for (const char* text : {"read", "received", "more"}) {
              test::until_waited_for(ends.here(), detail::direction::read);
              test::write_text(ends.there(), text);
            }
          });
          reader.join();
          writer.join();
          dlclose(library);
          return seen;
        },
        "read received polled");
  }
}
