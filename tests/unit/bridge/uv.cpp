// SPDX-License-Identifier: Apache-2.0
//
// Requests of a uv_loop_t that is not tendril's, by await_callback: the recipe of docs/bridges.md.
#include "support/with_workers.hpp"

#include <tendril/await.hpp>
#include <tendril/semaphore.hpp>

#include <uv.h>

#include <netdb.h>

#include <fcntl.h>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

using tendril::await_callback;
using tendril::test::on_everyone;
using tendril::test::with_workers;

namespace {

/// A loop on a thread of its own. libuv's functions belong on that thread, so requests are posted to it.
class uv_thread {
 public:
  uv_thread() {
    uv_loop_init(&loop_);
    uv_async_init(&loop_, &wake_,
                  [](uv_async_t* a) { static_cast<uv_thread*>(a->data)->run_posted(); });
    wake_.data = this;
    thread_ = std::thread([this] { uv_run(&loop_, UV_RUN_DEFAULT); });
  }
  ~uv_thread() {
    post([this] { uv_close(reinterpret_cast<uv_handle_t*>(&wake_), nullptr); });
    thread_.join();
    closed_ = uv_loop_close(&loop_) == 0;
  }

  void post(std::function<void()> f) {
    {
      const std::lock_guard hold(mutex_);
      posted_.push_back(std::move(f));
    }
    uv_async_send(&wake_);
  }
  uv_loop_t* loop() { return &loop_; }

 private:
  void run_posted() {
    std::vector<std::function<void()>> now;
    {
      const std::lock_guard hold(mutex_);
      now.swap(posted_);
    }
    for (auto& f : now) f();
  }

  uv_loop_t loop_;
  uv_async_t wake_;
  std::mutex mutex_;
  std::vector<std::function<void()>> posted_;
  std::thread thread_;
  bool closed_ = false;
};

/// A request with what completes it, freed in its callback.
template <class Request, class... R>
struct pending {
  Request request;
  tendril::callback_done<R...> done;
  static pending& of(Request* r) { return *static_cast<pending*>(r->data); }
  static pending* make(tendril::callback_done<R...> d) {
    auto* const p = new pending{{}, std::move(d)};
    p->request.data = p;
    return p;
  }
};

using fs = pending<uv_fs_t, ssize_t>;
void fs_done(uv_fs_t* r) {
  fs& p = fs::of(r);
  p.done(r->result);
  uv_fs_req_cleanup(r);
  delete &p;
}

ssize_t open_file(uv_thread& uv, const char* path) {
  return await_callback<ssize_t>([&](auto done) {
    uv.post([&uv, path, done] {
      uv_fs_open(uv.loop(), &fs::make(done)->request, path, O_RDONLY, 0, fs_done);
    });
  });
}
ssize_t read_file(uv_thread& uv, ssize_t fd, char* to, unsigned size) {
  return await_callback<ssize_t>([&](auto done) {
    uv.post([&uv, fd, to, size, done] {
      const uv_buf_t buffer = uv_buf_init(to, size);
      uv_fs_read(uv.loop(), &fs::make(done)->request, static_cast<uv_file>(fd), &buffer, 1, 0,
                 fs_done);
    });
  });
}
ssize_t close_file(uv_thread& uv, ssize_t fd) {
  return await_callback<ssize_t>([&](auto done) {
    uv.post([&uv, fd, done] {
      uv_fs_close(uv.loop(), &fs::make(done)->request, static_cast<uv_file>(fd), fs_done);
    });
  });
}

/// A handle lives until its close callback; a call that comes late to stop it finds it over.
struct timer {
  uv_timer_t handle;
  std::optional<tendril::callback_done<bool>> done;
  bool over = false;
  std::shared_ptr<timer> self;

  void end(bool elapsed) {
    if (std::exchange(over, true)) return;
    (*done)(elapsed);
    uv_close(reinterpret_cast<uv_handle_t*>(&handle), [](uv_handle_t* h) {
      const std::shared_ptr<timer> last = std::move(static_cast<timer*>(h->data)->self);
    });
  }
};
/// True: it has elapsed. A stop request ends it early.
bool sleep_on(uv_thread& uv, std::uint64_t milliseconds) {
  const auto t = std::make_shared<timer>();
  return await_callback<bool>(
      [&](auto done) {
        t->done = std::move(done);
        t->self = t;
        t->handle.data = t.get();
        uv.post([&uv, milliseconds, t] {
          uv_timer_init(uv.loop(), &t->handle);
          uv_timer_start(
              &t->handle, [](uv_timer_t* h) { static_cast<timer*>(h->data)->end(true); },
              milliseconds, 0);
        });
      },
      [&] { uv.post([t] { t->end(false); }); });
}

int resolve(uv_thread& uv, const char* host, std::string& port) {
  using lookup = pending<uv_getaddrinfo_t, int, addrinfo*>;
  const auto [status, found] = await_callback<int, addrinfo*>([&](auto done) {
    uv.post([&uv, host, done] {
      addrinfo hints{};
      hints.ai_flags = AI_NUMERICHOST;
      hints.ai_socktype = SOCK_STREAM;
      uv_getaddrinfo(
          uv.loop(), &lookup::make(done)->request,
          [](uv_getaddrinfo_t* r, int s, addrinfo* result) {
            lookup& p = lookup::of(r);
            p.done(s, result);
            delete &p;
          },
          host, "80", &hints);
    });
  });
  if (status == 0) {
    char text[16] = {};
    getnameinfo(found->ai_addr, found->ai_addrlen, nullptr, 0, text, sizeof text, NI_NUMERICSERV);
    port = text;
    uv_freeaddrinfo(found);
  }
  return status;
}

}  // namespace

TEST_SUITE("await_uv") {
  TEST_CASE("files, timers and names, from fibers and threads") {
    with_workers([](tendril::runtime&) {
      uv_thread uv;
      std::atomic<int> right = 0;
      on_everyone(4, 2, [&](int) {
        const ssize_t fd = open_file(uv, "/proc/self/comm");
        const auto text = std::make_unique<char[]>(64);
        const ssize_t n = read_file(uv, fd, text.get(), 64);
        right += fd >= 0 && n > 1 && text[static_cast<std::size_t>(n) - 1] == '\n';
        right += close_file(uv, fd) == 0;
        right += open_file(uv, "/nowhere/at/all") == UV_ENOENT;
        right += sleep_on(uv, 1);
        std::string port;
        right += resolve(uv, "127.0.0.1", port) == 0 && port == "80";
        right += resolve(uv, "no number", port) != 0;
      });
      CHECK(right == 6 * 6);
    });
  }

  TEST_CASE("a stop request calls a timer off") {
    with_workers([](tendril::runtime&) {
      uv_thread uv;
      std::atomic<int> ended_early = 0;
      std::vector<tendril::fiber> sleeping;
      for (int i = 0; i != 8; ++i)
        sleeping.emplace_back([&] { ended_early += !sleep_on(uv, 3'600'000); });
      for (auto& f : sleeping) f.request_stop();
      for (auto& f : sleeping) f.join();
      CHECK(ended_early == 8);
    });
  }
}
