// SPDX-License-Identifier: Apache-2.0
//
// Fibers that block their threads. Each case lets a fiber block in a system call until something that
// needs its worker has happened: one that fails hangs, and the watchdog says so. None depends on how long
// the monitor takes.
#include "support/block.hpp"
#include "support/forked.hpp"
#include "support/own_stack.hpp"
#include "support/with_workers.hpp"

#include "platform/barrier.hpp"
#include "sched/thread_pin.hpp"

#include <tendril/channel.hpp>
#include <tendril/io.hpp>
#include <tendril/mutex.hpp>
#include <tendril/net.hpp>
#include <tendril/scope.hpp>
#include <tendril/semaphore.hpp>

#include <doctest/doctest.h>

#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
using tendril::fiber;
using tendril::fiber_options;
using tendril::runtime;
using tendril::runtime_options;
using tendril::test::block;
using tendril::test::child_result;
using tendril::test::run_forked;
using tendril::test::run_on_own_stack;
using tendril::test::watchdog;
namespace detail = tendril::detail;
namespace this_fiber = tendril::this_fiber;

[[gnu::noinline]] long thread_number() { return ::syscall(SYS_gettid); }

// Out of line: compilers keep the address of errno over a switch.
[[gnu::noinline]] void set_errno(int value) {
  errno = value;
  asm volatile("" : : : "memory");
}
[[gnu::noinline]] int get_errno() { return errno; }

/// The reports that a runtime made.
struct reports {
  mutable std::mutex mutex;
  std::vector<std::string> texts;

  auto handler() {
    return [this](std::string_view text) {
      const std::scoped_lock hold(mutex);
      texts.emplace_back(text);
    };
  }
  std::size_t count(const char* part) const {
    const std::scoped_lock hold(mutex);
    std::size_t n = 0;
    for (const std::string& t : texts) n += t.find(part) != std::string::npos ? 1 : 0;
    return n;
  }
};

runtime_options quiet(unsigned workers) {
  return {.workers = workers, .on_blocked_worker = [](std::string_view) {}};
}

/// Blocks the calling fiber until its worker has gone on without it, on one worker: a fiber that was
/// queued here ends the block.
void lose_worker() {
  const auto b = std::make_shared<block>();
  fiber other([b] { b->release(); });
  b->enter();
  other.detach();
}

constexpr tendril::poller_kind both_pollers[] = {tendril::poller_kind::native,
                                                 tendril::poller_kind::portable};

}  // namespace

TEST_SUITE("blocked") {
  TEST_CASE("what is queued behind a blocked fiber runs, on one worker") {
    runtime rt(quiet(1));
    const watchdog dog("queued behind a blocked fiber", &rt);
    int ran = 0;
    rt.run([&] {
      const block b;
      fiber other([&] {
        ran = 1;
        b.release();
      });
      b.enter();
      other.join();
    });
    CHECK(ran == 1);
    CHECK(rt.stats().workers_handed_over >= 1);
    CHECK(rt.stats().spare_threads >= 1);
  }

  TEST_CASE("timers of a blocked fiber's worker fire") {
    runtime rt(quiet(1));
    const watchdog dog("timers", &rt);
    run_on_own_stack(rt, [&] {
      const block b;
      std::atomic<bool> sleeping{false};
      fiber sleeper([&] {
        sleeping = true;
        this_fiber::sleep_for(1ms);
        b.release();
      });
      while (!sleeping) this_fiber::yield();
      b.enter();
      sleeper.join();
    });
    CHECK(rt.stats().timers_fired >= 1);
  }

  TEST_CASE("sockets of a blocked fiber's worker are served") {
    for (const tendril::poller_kind kind : both_pollers) {
      runtime_options o = quiet(1);
      o.poller = kind;
      runtime rt(o);
      const watchdog dog("sockets", &rt);
      std::size_t got = 0;
      run_on_own_stack(rt, [&] {
        const block b;
        tendril::net::tcp_listener listener(tendril::net::endpoint::loopback(0));
        std::atomic<bool> waiting{false};
        fiber server([&] {
          auto stream = listener.accept();
          char text[16];
          waiting = true;
          got = stream.read_some(tendril::buffer(text));
          b.release();
        });
        auto client = tendril::net::tcp_stream::connect(listener.local_endpoint());
        while (!waiting) this_fiber::yield();
        this_fiber::yield();
        // By a thread: this fiber is in the middle of a block when the bytes arrive.
        std::thread writer([fd = client.native_handle()] {
          [[maybe_unused]] const auto n = ::write(fd, "hello", 5);
        });
        b.enter();
        writer.join();
        server.join();
      });
      CHECK(got == 5);
    }
  }

  TEST_CASE("what threads inject runs although the only worker's fiber is blocked") {
    runtime rt(quiet(1));
    const watchdog dog("injected", &rt);
    const block b;
    std::atomic<bool> blocked{false};
    std::thread outside([&] {
      while (!blocked) std::this_thread::yield();
      rt.spawn([&] { b.release(); });
    });
    rt.run([&] {
      blocked = true;
      b.enter();
    });
    outside.join();
    CHECK(rt.stats().workers_handed_over >= 1);
  }

  TEST_CASE("a blocked fiber keeps its thread until its next call that may switch") {
    runtime rt(quiet(1));
    const watchdog dog("keeps its thread", &rt);
    long before = 0, after = 0, later = 0, moved = 0;
    int index = -2, index_later = -2;
    rt.run([&] {
      tendril::counting_semaphore<> s(0);
      before = thread_number();
      lose_worker();
      after = thread_number();
      index = this_fiber::worker_index();
      s.release();
      fiber(fiber_options{.name = "started by an orphan"}, [] {}).detach();
      later = thread_number();
      this_fiber::yield();
      moved = thread_number();
      index_later = this_fiber::worker_index();
    });
    CHECK(before == after);
    CHECK(after == later);
    CHECK(moved != later);
    CHECK(index == -1);
    CHECK(index_later == 0);
  }

  TEST_CASE("after a block the fiber is who it was, and can do what it could") {
    runtime rt(quiet(1));
    const watchdog dog("who it was", &rt);
    bool is_fiber = false, same_id = false, same_name = false, locked = false;
    int received = 0, number = 0;
    std::string caught;
    tendril::runtime* current = nullptr;
    fiber f;
    rt.run([&] {
      f = fiber(fiber_options{.name = "blocker"}, [&] {
        const auto id = this_fiber::get_id();
        tendril::channel<int> c(1);
        tendril::mutex m;
        const auto stop = this_fiber::get_stop_token();
        try {
          throw std::runtime_error("in flight");
        } catch (...) {
          lose_worker();
          is_fiber = this_fiber::is_fiber();
          same_id = this_fiber::get_id() == id;
          same_name = this_fiber::name() == "blocker";
          current = runtime::current();
          m.lock();
          locked = true;
          m.unlock();
          c.send(7);
          set_errno(ERANGE);
          this_fiber::yield();  // moves to another thread
          number = get_errno();
          lose_worker();
          received = c.receive().value();
          lose_worker();
          this_fiber::sleep_for(1us);
          try {
            throw;
          } catch (const std::exception& e) {
            caught = e.what();
          }
        }
      });
      f.join();
    });
    CHECK(is_fiber);
    CHECK(same_id);
    CHECK(same_name);
    CHECK(current == &rt);
    CHECK(locked);
    CHECK(received == 7);
    CHECK(caught == "in flight");
    CHECK(number == ERANGE);
  }

  TEST_CASE(
      "a wait with a deadline, a cancelled one and a join begin on a thread without a worker") {
    runtime rt(quiet(1));
    const watchdog dog("waits from an orphan", &rt);
    bool timed_out = false, canceled = false, joined = false;
    rt.run([&] {
      tendril::counting_semaphore<> never(0);
      lose_worker();
      timed_out = !never.try_acquire_for(1ms);
      fiber victim([&] {
        lose_worker();
        try {
          this_fiber::sleep_for(1h);
        } catch (const std::system_error& e) {
          canceled = e.code() == std::errc::operation_canceled;
        }
      });
      this_fiber::yield();
      victim.request_stop();
      lose_worker();
      victim.join();
      joined = true;
    });
    CHECK(timed_out);
    CHECK(canceled);
    CHECK(joined);
  }

  TEST_CASE("a fiber may end on a thread without a worker: by return, by an exception, detached") {
    std::atomic<int> unhandled{0};
    runtime_options o = quiet(1);
    o.on_unhandled_exception = [&](std::string_view name, std::exception_ptr) {
      unhandled += name == "thrower" ? 1 : 100;
    };
    runtime rt(o);
    const watchdog dog("ends on an orphan", &rt);
    std::string message;
    rt.run([&] {
      fiber plain([] { lose_worker(); });
      plain.join();
      fiber failing([] {
        lose_worker();
        throw std::runtime_error("after the block");
      });
      try {
        failing.join();
      } catch (const std::exception& e) {
        message = e.what();
      }
      fiber(fiber_options{.name = "thrower"}, [] {
        lose_worker();
        throw 1;
      }).detach();
    });
    rt.drain();
    CHECK(unhandled == 1);
    CHECK(rt.stats().fibers_alive() == 0);
  }

  TEST_CASE("a fiber bound to a worker comes back to that worker") {
    runtime rt(quiet(2));
    const watchdog dog("affinity", &rt);
    std::vector<int> seen;
    run_on_own_stack(rt, [&] {
      for (const int home : {0, 1, 1, 0}) {
        fiber bound(fiber_options{.affinity = home}, [&] {
          const block b;
          // Bound to the same worker, so that nobody else can run it.
          fiber other(fiber_options{.affinity = home}, [&] { b.release(); });
          b.enter();
          this_fiber::yield();
          seen.push_back(this_fiber::worker_index());
          other.join();
        });
        bound.join();
      }
    });
    CHECK(seen == std::vector<int>{0, 1, 1, 0});
    CHECK(rt.stats().workers_handed_over >= 4);
  }

  TEST_CASE("hundreds of times, with as few threads as it takes") {
    runtime rt(quiet(1));
    const watchdog dog("hundreds of times", &rt);
    int done = 0;
    rt.run([&] {
      for (; done != 150; ++done) {
        lose_worker();
        this_fiber::yield();
      }
    });
    CHECK(done == 150);
    CHECK(rt.stats().workers_handed_over >= 150);
    CHECK(rt.stats().spare_threads <= 2);
  }

  TEST_CASE("many at once: each takes a thread, and all come back") {
    constexpr int most = 12;
    runtime rt(quiet(2));
    const watchdog dog("many at once", &rt);
    std::atomic<int> inside{0};
    run_on_own_stack(rt, [&] {
      const block b;
      std::vector<fiber> all;
      for (int i = 0; i != most; ++i)
        all.emplace_back([&] {
          ++inside;
          b.enter();
        });
      fiber last([&] {
        while (inside != most) this_fiber::yield();
        for (int i = 0; i != most; ++i) b.release();
      });
      for (fiber& f : all) f.join();
      last.join();
    });
    CHECK(inside == most);
    CHECK(rt.stats().spare_threads >= most - 2);
  }

  TEST_CASE("spare threads end when there is nothing for them") {
    runtime_options o = quiet(1);
    o.spare_thread_idle = 1ms;
    runtime rt(o);
    const watchdog dog("spares end", &rt);
    for (int round = 0; round != 3; ++round) {
      rt.run([] { lose_worker(); });
      while (rt.stats().spare_threads != 0) std::this_thread::yield();
    }
    CHECK(rt.stats().workers_handed_over >= 3);
  }

  TEST_CASE("a runtime ends although its spares wait, also on a fiber of another runtime") {
    for (int i = 0; i != 10; ++i) {
      runtime outer(quiet(1));
      const watchdog dog("two runtimes", &outer);
      int inner_result = 0;
      run_on_own_stack(outer, [&] {
        const block b;
        fiber other([&] { b.release(); });
        inner_result = tendril::run(quiet(1), [&] {
          b.enter();
          return 5;
        });
        other.join();
      });
      CHECK(inner_result == 5);
    }
  }

  TEST_CASE("a fiber that computes keeps its worker") {
    runtime rt(quiet(1));
    const watchdog dog("computes", &rt);
    std::atomic<bool> enough{false};
    std::atomic<bool> started{false};
    std::thread observer([&] {
      while (!started) std::this_thread::yield();
      const auto before = rt.stats().stalls;
      while (rt.stats().stalls < before + 5) std::this_thread::yield();
      enough = true;
    });
    bool alone = false;
    run_on_own_stack(rt, [&] {
      bool other_ran = false;
      fiber other([&] { other_ran = true; });
      started = true;
      while (!enough) asm volatile("" : : : "memory");
      alone = !other_ran;
      other.join();
    });
    observer.join();
    CHECK(alone);
    CHECK(rt.stats().workers_handed_over == 0);
  }

  TEST_CASE("with no spare threads allowed nothing is handed over") {
    runtime_options o = quiet(1);
    o.max_spare_threads = 0;
    runtime rt(o);
    const watchdog dog("none allowed", &rt);
    const block b;
    std::atomic<bool> started{false};
    std::thread observer([&] {
      while (!started) std::this_thread::yield();
      const auto before = rt.stats().stalls;
      while (rt.stats().stalls < before + 3) std::this_thread::yield();
      b.release();
    });
    bool other_ran = false, ran_before = true;
    rt.run([&] {
      fiber other([&] { other_ran = true; });
      started = true;
      b.enter();
      ran_before = other_ran;
      other.join();
    });
    observer.join();
    CHECK_FALSE(ran_before);
    CHECK(rt.stats().workers_handed_over == 0);
    CHECK(rt.stats().spare_threads == 0);
  }

  TEST_CASE("when all spares are blocked it is said, and the next to come back helps") {
    reports said;
    runtime rt({.workers = 1, .max_spare_threads = 1, .on_blocked_worker = said.handler()});
    const watchdog dog("bound", &rt);
    const block first, second;
    std::thread observer([&] {
      while (said.count("max_spare_threads") == 0) std::this_thread::yield();
      first.release();
    });
    rt.run([&] {
      fiber c([&] { second.release(); });  // the newest runs first
      fiber b([&] { second.enter(); });
      fiber a([&] { first.enter(); });
      a.join();
      b.join();
      c.join();
    });
    observer.join();
    CHECK(said.count("1 threads are blocked already (runtime_options::max_spare_threads)") == 1);
    CHECK(rt.stats().spare_threads == 1);
  }

  TEST_CASE("without membarrier it is said once, and nothing is handed over") {
    tendril::platform::fail_heavy_barriers(true);
    reports said;
    {
      runtime rt({.workers = 1, .on_blocked_worker = said.handler()});
      const watchdog dog("no membarrier", &rt);
      const block b;
      std::thread observer([&] {
        while (said.count("membarrier") == 0) std::this_thread::yield();
        const auto before = rt.stats().stalls;
        while (rt.stats().stalls < before + 3) std::this_thread::yield();
        b.release();
      });
      rt.run([&] {
        fiber other([] {});
        b.enter();
        other.join();
      });
      observer.join();
      CHECK(rt.stats().workers_handed_over == 0);
    }
    tendril::platform::fail_heavy_barriers(false);
    CHECK(said.count("membarrier") == 1);
  }

  TEST_CASE("each place is reported once: fiber, system call, function and caller") {
    reports said;
    runtime rt({.workers = 1, .on_blocked_worker = said.handler()});
    const watchdog dog("reports", &rt);
    rt.run([] {
      for (int i = 0; i != 5; ++i) {
        fiber f(fiber_options{.name = "reader"}, [] { lose_worker(); });
        f.join();
      }
    });
    CHECK(rt.stats().workers_handed_over >= 5);
    REQUIRE(said.count("fiber 'reader' (id ") == 1);
    const std::string& text = said.texts[0];
    CAPTURE(text);
    CHECK(text.find("has blocked the thread of worker 0 for ") != std::string::npos);
    CHECK(text.find(", in system call " + std::to_string(SYS_read) + " at ") != std::string::npos);
    CHECK(text.find("called from about ") != std::string::npos);
    CHECK(text.find("goes on on another thread") != std::string::npos);
  }

  TEST_CASE("reports go to stderr, once, if there is no handler") {
    const child_result r = run_forked([] {
      tendril::run({.workers = 1}, [] {
        for (int i = 0; i != 3; ++i) {
          fiber f(fiber_options{.name = "in a child"}, [] { lose_worker(); });
          f.join();
        }
      });
    });
    CAPTURE(r.error_output);
    CHECK(r.exit_code == 0);
    const std::size_t at = r.error_output.find("tendril: fiber 'in a child' (id ");
    CHECK(at != std::string::npos);
    CHECK(r.error_output.find("tendril: fiber", at + 1) == std::string::npos);
  }

  TEST_CASE("a blocked fiber that others wait for is no deadlock") {
    const child_result r = run_forked([] {
      runtime rt({.workers = 2,
                  .on_deadlock = tendril::deadlock_policy::abort,
                  .deadlock_grace = 20ms,
                  .on_blocked_worker = [](std::string_view) {}});
      const block b;
      std::thread outside([&] {
        while (rt.stats().workers_handed_over == 0) std::this_thread::yield();
        std::this_thread::sleep_for(300ms);  // many times the grace
        b.release();
      });
      rt.run([&] {
        fiber blocked([&] {
          fiber other([] {});
          b.enter();
          other.join();
        });
        // A timer for the monitor to hand the worker over for; then nothing is pending.
        this_fiber::sleep_for(50ms);
        blocked.join();
      });
      outside.join();
    });
    CAPTURE(r.error_output);
    CHECK(r.exit_code == 0);
    CHECK_FALSE(r.says("nothing inside"));
  }
}

TEST_SUITE("pinned") {
  using tendril::detail::pin_thread;
  using tendril::detail::unpin_thread;

  TEST_CASE("a pinned fiber's wait hands its worker over at once, and keeps its thread") {
    reports said;
    runtime rt({.workers = 1, .on_blocked_worker = said.handler()});
    const watchdog dog("pinned wait", &rt);
    long before = 0, after = 0, released = 0;
    int index = -2;
    unsigned pins = 0;
    volatile int turns = 3;  // an unrolled loop would be three places
    rt.run([&] {
      for (int i = 0; i != turns; ++i) {
        tendril::counting_semaphore<> s(0);
        fiber other([&] { s.release(); });
        pin_thread();
        pin_thread();
        pins = detail::thread_pins();
        before = thread_number();
        s.acquire();
        after = thread_number();
        unpin_thread();
        unpin_thread();
        released = thread_number();
        index = this_fiber::worker_index();
        other.join();
      }
    });
    CHECK(pins == 2);
    CHECK(before == after);
    CHECK(released != after);
    CHECK(index == 0);
    CHECK(rt.stats().pinned_parks == 3);
    CHECK(rt.stats().workers_handed_over == 3);
    CHECK(said.count("while it is pinned to its thread") == 1);
  }

  TEST_CASE("a pin costs nothing while the fiber does not wait, and is none on a thread") {
    runtime rt(quiet(1));
    pin_thread();
    CHECK(detail::thread_pins() == 0);
    unpin_thread();
    long before = 0, after = 0;
    rt.run([&] {
      tendril::counting_semaphore<> s(1);
      before = thread_number();
      pin_thread();
      s.acquire();
      s.release();
      fiber other([] {});
      unpin_thread();
      after = thread_number();
      other.join();
    });
    CHECK(before == after);
    CHECK(rt.stats().pinned_parks == 0);
    CHECK(rt.stats().workers_handed_over == 0);
  }

  TEST_CASE("deadlines and stop requests reach a pinned wait") {
    runtime rt(quiet(1));
    const watchdog dog("pinned deadlines", &rt);
    bool slept = false, timed_out = false, canceled = false;
    std::atomic<bool> expired{false};
    run_on_own_stack(rt, [&] {
      tendril::counting_semaphore<> never(0);
      fiber f([&] {
        pin_thread();
        this_fiber::sleep_for(1ms);
        slept = true;
        timed_out = !never.try_acquire_for(1ms);
        {
          tendril::deadline_scope scope(1ms);
          try {
            never.acquire();
          } catch (const std::system_error& e) {
            expired = e.code() == std::errc::timed_out;
          }
        }
        try {
          this_fiber::sleep_for(1h);
        } catch (const std::system_error& e) {
          canceled = e.code() == std::errc::operation_canceled;
        }
        unpin_thread();
      });
      while (!expired) this_fiber::yield();
      f.request_stop();
      f.join();
    });
    CHECK(slept);
    CHECK(timed_out);
    CHECK(expired);
    CHECK(canceled);
  }

  TEST_CASE("a pinned yield lets others run") {
    runtime rt(quiet(1));
    const watchdog dog("pinned yield", &rt);
    std::atomic<bool> ran{false};
    rt.run([&] {
      fiber other([&] { ran = true; });
      pin_thread();
      while (!ran) this_fiber::yield();
      unpin_thread();
      other.join();
    });
    CHECK(ran);
  }

  TEST_CASE("a pinned fiber does I/O as a thread does, and starts and joins others") {
    for (const tendril::poller_kind kind : both_pollers) {
      runtime_options o = quiet(1);
      o.poller = kind;
      runtime rt(o);
      const watchdog dog("pinned I/O", &rt);
      std::size_t got = 0;
      int on_pool = 0;
      bool joined = false;
      rt.run([&] {
        tendril::net::tcp_listener listener(tendril::net::endpoint::loopback(0));
        auto client = tendril::net::tcp_stream::connect(listener.local_endpoint());
        auto server = listener.accept();
        fiber peer([&] { client.write_all(tendril::buffer("hello", 5)); });
        pin_thread();
        char text[8];
        got = server.read_some(tendril::buffer(text));
        on_pool = tendril::blocking([] { return 3; });
        fiber child([] {});
        child.join();
        joined = true;
        unpin_thread();
        peer.join();
      });
      CHECK(got == 5);
      CHECK(on_pool == 3);
      CHECK(joined);
    }
  }

  TEST_CASE("pinned fibers wake each other and threads") {
    runtime rt(quiet(2));
    const watchdog dog("pinned to pinned", &rt);
    int sum = 0;
    run_on_own_stack(rt, [&] {
      tendril::channel<int> there(0), back(0);
      fiber a([&] {
        pin_thread();
        for (int i = 0; i != 100; ++i) {
          there.send(i);
          sum += back.receive().value();
        }
        unpin_thread();
      });
      fiber b([&] {
        pin_thread();
        for (int i = 0; i != 100; ++i) back.send(there.receive().value());
        unpin_thread();
      });
      a.join();
      b.join();
    });
    CHECK(sum == 4950);
  }
}
