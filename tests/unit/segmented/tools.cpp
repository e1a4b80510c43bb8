// SPDX-License-Identifier: Apache-2.0
//
// What looks at stacks from outside, or leaves them in other ways than by returning, on segments:
// exceptions across 50 of them, traces, debugger and profiler (the latter two in children, on
// subject.cpp), signals on the alternate stack.
#include "platform/split_stack.hpp"

#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>
#include <tendril/semaphore.hpp>

#include <doctest/doctest.h>

#include <execinfo.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#if __has_include(<boost/stacktrace.hpp>)
#include <boost/stacktrace.hpp>
#define TEST_BOOST_STACKTRACE 1
#else
#define TEST_BOOST_STACKTRACE 0
#endif

namespace {

// By a pointer: it is not compiled for segments, and linkers move whoever calls such functions by name.
std::uintptr_t (*volatile stack_limit)() = tendril::platform::stack_limit;

tendril::runtime_options on_segments(unsigned workers) {
  tendril::runtime_options options;
  options.workers = workers;
  options.stack.kind = tendril::stack_kind::segmented;
  return options;
}

// Shows the array to the optimizer as used, whatever is done with it.
void keep(volatile char* array) { asm volatile("" : : "r"(array) : "memory"); }

// --- exceptions ----------------------------------------------------------------------------------

constexpr int wanted_segments = 50;

struct flight {
  int segments = 0;    // entered on the way down
  int frames = 0;      // alive
  int caught = 0;      // handlers entered on the way up
  int migrations = 0;  // of them: each parks and goes on on another thread
  bool in_order = true;
};

// Parks until another worker has taken the caller over: who wakes it on this one does not let go of it.
// (Thread ids by gettid: compilers keep pthread_self's result across a switch.)
void migrate(flight& f) {
  const pid_t before = ::gettid();
  for (pid_t now = before; now == before; now = ::gettid()) {
    std::atomic<bool> resumed{false};
    tendril::binary_semaphore wake{0};
    tendril::fiber holder([&] {
      wake.release();
      while (::gettid() == before && !resumed.load(std::memory_order_acquire))
        asm volatile("pause");
    });
    wake.acquire();
    now = ::gettid();
    resumed.store(true, std::memory_order_release);
    holder.join();
  }
  ++f.migrations;
}

class in_frame {
 public:
  explicit in_frame(flight& f) : f_(f), number_(f.frames++) {}
  // The frames beyond this one are gone.
  ~in_frame() { f_.in_order = f_.in_order && --f_.frames == number_; }
  in_frame(const in_frame&) = delete;
  in_frame& operator=(const in_frame&) = delete;

 private:
  flight& f_;
  int number_;
};

// Each call enters a segment now and then; at every tenth the exception is caught, the fiber parks inside
// the handler and resumes elsewhere, and rethrows.
[[gnu::noinline]] void fly(flight& f, std::uintptr_t callers_limit) {
  const in_frame here(f);
  volatile char frame[48 << 10];
  keep(frame);
  frame[0] = static_cast<char>(f.frames);
  const bool entered = stack_limit() != callers_limit;
  if (entered) ++f.segments;
  if (f.segments == wanted_segments) throw std::runtime_error("from the fiftieth segment");
  if (!entered || f.segments % 10 != 0) {
    fly(f, stack_limit());
  } else {
    try {
      fly(f, stack_limit());
    } catch (const std::exception& e) {
      ++f.caught;
      migrate(f);
      f.in_order = f.in_order && std::string(e.what()) == "from the fiftieth segment";
      throw;
    }
  }
  frame[1] = frame[0];
}

// --- traces --------------------------------------------------------------------------------------

constexpr int traced_frames = 40;

struct trace {
  std::vector<void*> expected;  // innermost first
  std::vector<void*> found;
  int segments = 0;
};

template <class Take>
[[gnu::noinline]] void traced(trace& t, int depth, std::uintptr_t callers_limit, Take take) {
  volatile char frame[1 << 13];
  keep(frame);
  frame[0] = static_cast<char>(depth);
  if (stack_limit() != callers_limit) ++t.segments;
  if (depth == 0) take(t.found);
  else traced(t, depth - 1, stack_limit(), take);
  frame[1] = frame[0];
  // A segment's first frame returns into __morestack; where its caller goes on is one further.
  t.expected.push_back(__builtin_extract_return_addr(__builtin_return_address(0)));
}

// The frames' return addresses among the found, in order. What a trace also has (__morestack, or the address
// in the prologue) is passed over.
int matching(const trace& t) {
  auto at = t.found.begin();
  int n = 0;
  for (void* const each : t.expected) {
    const auto next = std::find(at, t.found.end(), each);
    if (next == t.found.end()) continue;
    at = next + 1;
    ++n;
  }
  return n;
}

template <class Take>
trace trace_on_segments(Take take) {
  trace t;
  tendril::runtime rt(on_segments(1));
  rt.run([&] { traced(t, traced_frames - 1, stack_limit(), take); });
  return t;
}

// --- children ------------------------------------------------------------------------------------

struct finished {
  int status = -1;
  std::string output;
};

finished run(const std::string& command) {
  finished f;
  std::FILE* const pipe = ::popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return f;
  std::array<char, 4096> buffer{};
  while (const std::size_t n = std::fread(buffer.data(), 1, buffer.size(), pipe)) {
    f.output.append(buffer.data(), n);
  }
  const int status = ::pclose(pipe);
  f.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return f;
}

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t n = 0;
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + what.size()))
    ++n;
  return n;
}

// --- signals -------------------------------------------------------------------------------------

std::atomic<int> handled{0};
std::atomic<bool> on_alternate_stack{false};

[[gnu::noinline]] int use_stack(int depth) {
  volatile char frame[600];
  keep(frame);
  frame[0] = static_cast<char>(depth);
  return (depth == 0 ? 0 : use_stack(depth - 1)) + frame[0];
}

struct waiter {
  std::atomic<bool> ready{false};
  pthread_t worker{};
  std::uintptr_t before = 0;
  std::uintptr_t after = 0;
};

// Functions of their own: one that calls unsplit code, and what it calls, stand on a large segment.
[[gnu::noinline]] void note_thread(waiter& w) { w.worker = pthread_self(); }
[[gnu::noinline]] void wait_for_signals(waiter& w, int count) {
  w.before = stack_limit();
  w.ready.store(true, std::memory_order_release);
  while (handled.load(std::memory_order_acquire) < count) asm volatile("pause");
  w.after = stack_limit();
}

extern "C" void tendril_test_on_signal(int) {
  stack_t now{};
  sigaltstack(nullptr, &now);
  char text[100];
  std::snprintf(text, sizeof text, "%d %.2f", use_stack(5), 0.25);
  on_alternate_stack = (now.ss_flags & SS_ONSTACK) != 0 && std::string_view(text) == "15 0.25";
  handled.fetch_add(1, std::memory_order_release);
}

}  // namespace

TEST_SUITE("tools") {
  TEST_CASE("an exception passes 50 segments, caught, parked, migrated and rethrown") {
    flight f;
    std::string what;
    tendril::runtime rt(on_segments(2));
    rt.run([&] {
      try {
        fly(f, stack_limit());
      } catch (const std::runtime_error& e) {
        what = e.what();
      }
    });
    CHECK(what == "from the fiftieth segment");
    CHECK(f.segments == wanted_segments);
    CHECK(f.frames == 0);
    CHECK(f.in_order);
    CHECK(f.caught == 4);
    CHECK(f.migrations == 4);
  }

  TEST_CASE("backtrace() shows every frame, across segments") {
    const trace t = trace_on_segments([](std::vector<void*>& found) {
      found.resize(500);
      found.resize(static_cast<std::size_t>(::backtrace(found.data(), 500)));
    });
    CHECK(t.segments >= 2);
    CHECK(matching(t) == traced_frames);
    CHECK(t.found.size() < 400);  // and it ends
  }

#if TEST_BOOST_STACKTRACE
  TEST_CASE("Boost.Stacktrace shows every frame, across segments") {
    const trace t = trace_on_segments([](std::vector<void*>& found) {
      for (const auto& frame : boost::stacktrace::stacktrace(0, 500)) {
        found.push_back(const_cast<void*>(frame.address()));
      }
    });
    CHECK(t.segments >= 2);
    CHECK(matching(t) == traced_frames);
  }
#endif

  TEST_CASE("gdb's bt shows every frame, across segments") {
    const std::string gdb = "gdb -batch -nx -iex 'set debuginfod enabled off' ";
    if (run(gdb + "-ex run --args /bin/true").output.find("exited normally") == std::string::npos) {
      MESSAGE("skipped: gdb is not installed or may not trace here");
      return;
    }
    const finished f =
        run(gdb + "-ex 'set width 0' -ex 'break subject_bottom' -ex run -ex bt --args " +
            SEGMENTED_SUBJECT + " once");
    CHECK(f.status == 0);
    INFO(f.output);
    CHECK(count(f.output, " subject_descend (") == 60);
    CHECK(count(f.output, "subject_bottom (") >= 1);
    CHECK(count(f.output, "previous frame") == 0);  // "... inner to this frame (corrupt stack?)"
  }

  TEST_CASE("perf's call graphs by frame pointers show every frame, across segments") {
    char file[] = "/tmp/tendril-perf-XXXXXX";
    const int fd = ::mkstemp(file);
    REQUIRE(fd >= 0);
    ::close(fd);
    const std::string data(file);
    if (run("perf record -o " + data + " --call-graph fp -- /bin/true").status != 0) {
      MESSAGE("skipped: perf is not installed or may not record here");
    } else {
      CHECK(run("perf record -o " + data + " -e cpu-clock:u -c 1000000 --call-graph fp -- " +
                SEGMENTED_SUBJECT + " spin")
                .status == 0);
      const finished f = run("perf script -i " + data + " -F ip,sym");
      CHECK(f.status == 0);
      // Samples are separated by empty lines.
      std::size_t most = 0;
      for (std::size_t at = 0; at < f.output.size();) {
        const std::size_t end = std::min(f.output.find("\n\n", at), f.output.size());
        const std::string sample = f.output.substr(at, end - at);
        if (sample.find("subject_bottom") != std::string::npos) {
          most = std::max(most, count(sample, "subject_descend"));
        }
        at = end + 2;
      }
      CHECK(most >=
            60);  // more: the address in the prologue of a segment's first frame counts, too
    }
    ::unlink(file);
  }

  TEST_CASE("a handler on the alternate stack, while the fiber stands on its small segment") {
    handled = 0;
    struct sigaction action {};
    struct sigaction previous {};
    action.sa_handler = tendril_test_on_signal;
    action.sa_flags = SA_ONSTACK | SA_RESTART;
    REQUIRE(sigaction(SIGUSR2, &action, &previous) == 0);
    constexpr int signals = 20;
    waiter w;
    int sum = 0;
    tendril::runtime rt(on_segments(1));
    std::thread sender([&] {
      while (!w.ready.load(std::memory_order_acquire)) std::this_thread::yield();
      for (int i = 0; i < signals; ++i) {
        pthread_kill(w.worker, SIGUSR2);
        while (handled.load(std::memory_order_acquire) <= i) std::this_thread::yield();
      }
    });
    rt.run([&] {
      tendril::fiber waiting([&] {
        note_thread(w);
        wait_for_signals(w, signals);
        sum = use_stack(10);  // the segment beyond the edge is as it was
      });
      waiting.join();
    });
    sender.join();
    sigaction(SIGUSR2, &previous, nullptr);
    CHECK(handled == signals);
    CHECK(on_alternate_stack);
    CHECK(w.before == w.after);
    CHECK((w.before & tendril::platform::limit_tag_mask) ==
          tendril::platform::smallest_segment_tag);  // 2 KiB
    CHECK(sum == 55);
  }
}
