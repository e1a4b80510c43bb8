// SPDX-License-Identifier: Apache-2.0
//
// A pool of connections, as one writes it for threads: a mutex and a condition variable of the standard library. On
// fibers who waits here parks, because the functions of libc below these are intercepted.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace greetings {

template <class Connection>
class pool {
 public:
  /// At most so many; each is made by `make` when it is first wanted.
  pool(std::size_t most, std::function<std::unique_ptr<Connection>()> make)
      : most_(most), make_(std::move(make)) {
    idle_.reserve(most);  // giving back must not fail
  }

  /// A connection for a scope. One that is found to be broken is not given back, and the next user gets a new one.
  class lease {
   public:
    lease(pool& from, std::unique_ptr<Connection> what) noexcept
        : pool_(&from), connection_(std::move(what)) {}
    lease(lease&&) noexcept = default;
    lease& operator=(lease&&) = delete;
    ~lease() {
      if (pool_ != nullptr) pool_->give_back(std::move(connection_));
    }
    Connection* operator->() const noexcept { return connection_.get(); }

   private:
    struct forget {
      void operator()(pool*) const noexcept {}
    };
    std::unique_ptr<pool, forget> pool_;
    std::unique_ptr<Connection> connection_;
  };

  /// Waits while all are in use. Throws what making one throws.
  lease take() {
    std::unique_lock hold(mutex_);
    free_.wait(hold, [this] { return !idle_.empty() || used_ < most_; });
    ++used_;
    if (!idle_.empty()) {
      lease l(*this, std::move(idle_.back()));
      idle_.pop_back();
      return l;
    }
    hold.unlock();
    try {
      return lease(*this, make_());
    } catch (...) {
      give_back(nullptr);
      throw;
    }
  }

 private:
  void give_back(std::unique_ptr<Connection> c) noexcept {
    {
      const std::lock_guard hold(mutex_);
      --used_;
      if (c != nullptr && c->good()) idle_.push_back(std::move(c));
    }
    free_.notify_one();
  }

  const std::size_t most_;
  const std::function<std::unique_ptr<Connection>()> make_;
  std::mutex mutex_;
  std::condition_variable free_;
  std::vector<std::unique_ptr<Connection>> idle_;
  std::size_t used_ = 0;
};

}  // namespace greetings
