// SPDX-License-Identifier: Apache-2.0
#include "clients/servers.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <system_error>

#include <tendril/detail/sanitizers.hpp>

#if TENDRIL_ASAN
/// libpython: what the interpreter keeps beyond its end. libcrypto: a thread's random generator, if two fibers of that
/// thread make it at the same time because the first waits for a lock in between (docs/interception.md).
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:libpython\nleak:libcrypto\n"; }
#endif

namespace tendril::test {
namespace {

void tell(std::string_view what, std::string_view kind) {
  static std::mutex one_at_a_time;
  const std::lock_guard hold(one_at_a_time);
  const int fd = std::stoi(server_setting("SERVERS"));
  const std::string line = std::string(what) + ' ' + std::string(kind) + '\n';
  if (::write(fd, line.data(), line.size()) != static_cast<ssize_t>(line.size()))
    throw std::system_error(errno, std::system_category(), "telling the servers");
  std::string answer;
  for (char c = 0; c != '\n';) {
    const ssize_t n = ::read(fd, &c, 1);
    if (n <= 0) throw std::system_error(errno, std::system_category(), "the servers' answer");
    answer += c;
  }
  if (answer != "ok\n") throw std::runtime_error(line + ": " + answer);
}

}  // namespace

std::string server_setting(std::string_view name) {
  const std::string variable = "TENDRIL_" + std::string(name);
  const char* const value = std::getenv(variable.c_str());
  if (value == nullptr)
    throw std::runtime_error(variable +
                             " is not set: start this program by tests/clients/server.py");
  return value;
}

int server_port(std::string_view kind) {
  return std::stoi(server_setting(std::string(kind) + "_PORT"));
}

void stop_server(std::string_view kind) { tell("stop", kind); }
void kill_server(std::string_view kind) { tell("kill", kind); }
void start_server(std::string_view kind) { tell("start", kind); }

}  // namespace tendril::test
