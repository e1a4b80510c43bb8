// SPDX-License-Identifier: Apache-2.0
//
// I2's measurements, in a program that is linked with tendril::intercept.
#include "bench/scenario/variants.hpp"
#include "bench/support/cpu_clock.hpp"
#include "bench/support/interleaved.hpp"
#include "bench/support/role.hpp"
#include "bench/support/socket.hpp"
#include "bench/support/unique_fd.hpp"

#include <tendril/fiber.hpp>
#include <tendril/net.hpp>
#include <tendril/runtime.hpp>

#include <dlfcn.h>
#include <sys/socket.h>
#include <unistd.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace bench {
namespace {

void require(bool ok, const char* what) {
  if (!ok) throw std::runtime_error(std::string("intercepted calls: ") + what);
}

void* from_libc(const char* name) {
  void* const libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
  void* const found = libc != nullptr ? dlsym(libc, name) : nullptr;
  require(found != nullptr, "libc's own functions are found");
  require(found != dlsym(RTLD_DEFAULT, name), "the program is linked with tendril::intercept");
  return found;
}

void report(role_output& out, const interleaved& r, const char* reference,
            const std::string& name) {
  std::vector<double> over, ratio;
  const auto& a = r.taken(std::string(reference) + ":" + name);
  const auto& b = r.taken("intercepted:" + name);
  for (std::size_t i = 0; i != a.size(); ++i) {
    over.push_back(b[i] - a[i]);
    ratio.push_back(b[i] / a[i]);
  }
  out.send(std::string(reference) + ":" + name, median(a));
  out.send("intercepted:" + name, median(b));
  out.send("over:" + name, median(over));
  out.send("ratio:" + name, median(ratio));
}

// --- threads -------------------------------------------------------------------------------------------

constexpr int calls = 20'000;

template <class Call>
double ns_a_call(Call call) {
  const double begin = thread_cpu_ns();
  for (int i = 0; i != calls; ++i)
    if (call() != -1) require(false, "nothing is there to be read");
  return (thread_cpu_ns() - begin) / calls;
}

void on_thread(const arguments& args, role_output& out) {
  tendril::runtime rt({.workers = 1});  // that hooks are installed
  int ends[2];
  require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0, "a socket pair");
  const unique_fd here(ends[0]), there(ends[1]);
  const auto plain_read = reinterpret_cast<ssize_t (*)(int, void*, size_t)>(from_libc("read"));
  const auto plain_recv = reinterpret_cast<ssize_t (*)(int, void*, size_t, int)>(from_libc("recv"));
  char byte;
  const interleaved r(
      {{"libc:read", [&] { return ns_a_call([&] { return plain_read(-1, &byte, 1); }); }},
       {"intercepted:read", [&] { return ns_a_call([&] { return ::read(-1, &byte, 1); }); }},
       {"libc:recv",
        [&] { return ns_a_call([&] { return plain_recv(here.get(), &byte, 1, 0); }); }},
       {"intercepted:recv",
        [&] { return ns_a_call([&] { return ::recv(here.get(), &byte, 1, 0); }); }}},
      2, static_cast<unsigned>(args.number("cycles")),
      static_cast<std::uint64_t>(args.number("seed")));
  report(out, r, "libc", "read");
  report(out, r, "libc", "recv");
}

// --- fibers --------------------------------------------------------------------------------------------

constexpr int exchanges = 1'000;

/// A connection as two descriptors that nobody else manages.
struct connection {
  connection() {
    const listening_socket listener = listen_on_loopback(0, 0);
    client = connect_to_loopback(listener.port);
    server = unique_fd(::accept4(listener.fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
    set_no_delay(server.get());
  }
  unique_fd client, server;
};

struct by_calls {
  explicit by_calls(int number) : fd(number) {}
  int fd;
  void put() {
    const char byte = 'x';
    if (::write(fd, &byte, 1) != 1) require(false, "write");
  }
  void get() {
    char byte;
    if (::read(fd, &byte, 1) != 1) require(false, "read");
  }
};

struct by_stream {
  explicit by_stream(int number) : stream(tendril::net::tcp_stream::from_native(number)) {}
  tendril::net::tcp_stream stream;
  void put() {
    const char byte = 'x';
    stream.write_all(tendril::buffer(&byte, 1));
  }
  void get() {
    char byte;
    if (stream.read_some(tendril::buffer(&byte, 1)) != 1) require(false, "read_some");
  }
};

/// What one byte there costs, in nanoseconds.
template <class End>
double ready(End& a, End& b) {
  const double begin = process_cpu_ns();
  for (int i = 0; i != exchanges; ++i) {
    a.put();
    b.get();
  }
  return (process_cpu_ns() - begin) / exchanges;
}
template <class End>
double parked(End& a, End& b) {
  const double begin = process_cpu_ns();
  tendril::fiber other([&b] {
    for (int i = 0; i != exchanges / 2; ++i) {
      b.get();
      b.put();
    }
  });
  for (int i = 0; i != exchanges / 2; ++i) {
    a.put();
    a.get();
  }
  other.join();
  return (process_cpu_ns() - begin) / exchanges;
}

void on_fibers(const arguments& args, role_output& out) {
  tendril::runtime rt(runtime_with(args.text("stack"), 1));
  rt.run([&] {
    connection raw, managed;
    by_calls a(raw.client.get()), b(raw.server.get());
    by_stream c(managed.client.release()), d(managed.server.release());
    const interleaved r({{"stream:ready", [&] { return ready(c, d); }},
                         {"intercepted:ready", [&] { return ready(a, b); }},
                         {"stream:parked", [&] { return parked(c, d); }},
                         {"intercepted:parked", [&] { return parked(a, b); }}},
                        2, static_cast<unsigned>(args.number("cycles")),
                        static_cast<std::uint64_t>(args.number("seed")));
    for (const char* way : {"ready", "parked"}) report(out, r, "stream", way);
  });
}

int measure(const arguments& args, role_output& out) {
  if (args.text("what") == "thread") on_thread(args, out);
  else on_fibers(args, out);
  return 0;
}
const role_registration intercepted_calls_role("intercepted-calls", measure);

}  // namespace
}  // namespace bench
