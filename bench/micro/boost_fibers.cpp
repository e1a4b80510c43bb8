// SPDX-License-Identifier: Apache-2.0
//
// Where Boost.Fiber's schedulers live.
//
// One worker: a thread for each run, so that no scheduler is ever attached to the main thread.
//
// Two workers: work_stealing numbers its threads by a counter that never goes back, so a process can
// have one set of them. The pair below is started at the first use and stays; between runs both
// threads block in the operating system, because an idle work_stealing scheduler spins and would take
// a processor from whatever is measured next. During a run the second thread's main fiber waits on a
// fiber condition variable, and its scheduler steals.
#include "bench/micro/boost_fibers.hpp"

#include <boost/fiber/algo/work_stealing.hpp>

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <thread>

namespace bench::micro {
namespace {

std::exception_ptr outcome_of(const std::function<void()>& f) {
  try {
    f();
    return nullptr;
  } catch (...) {
    return std::current_exception();
  }
}

class work_stealing_pair {
 public:
  work_stealing_pair() : leader_([this] { lead(); }), helper_([this] { help(); }) {}
  ~work_stealing_pair() {
    {
      const std::scoped_lock lock(mutex_);
      ending_ = true;
    }
    changed_.notify_all();
    leader_.join();
    helper_.join();
  }
  work_stealing_pair(const work_stealing_pair&) = delete;
  work_stealing_pair& operator=(const work_stealing_pair&) = delete;

  void run(const std::function<void()>& f) {
    std::unique_lock lock(mutex_);
    job_ = &f;
    idle_ = 0;
    ++started_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return idle_ == 2; });
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  void lead() {
    boost::fibers::use_scheduling_algorithm<boost::fibers::algo::work_stealing>(2U);
    for (std::uint64_t run = 1; await(run); ++run) {
      std::exception_ptr error = outcome_of(*job_);
      {
        const std::scoped_lock lock(fiber_mutex_);
        finished_ = run;
      }
      fiber_changed_.notify_all();
      report_idle(std::move(error));
    }
  }

  void help() {
    boost::fibers::use_scheduling_algorithm<boost::fibers::algo::work_stealing>(2U);
    for (std::uint64_t run = 1; await(run); ++run) {
      {
        std::unique_lock lock(fiber_mutex_);
        fiber_changed_.wait(lock, [&] { return finished_ == run; });
      }
      report_idle(nullptr);
    }
  }

  /// Blocks the thread until that run has started; false at the end.
  bool await(std::uint64_t run) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ending_ || started_ == run; });
    return !ending_;
  }

  void report_idle(std::exception_ptr error) {
    {
      const std::scoped_lock lock(mutex_);
      if (error) error_ = std::move(error);
      ++idle_;
    }
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  const std::function<void()>* job_ = nullptr;
  std::uint64_t started_ = 0;
  int idle_ = 0;
  bool ending_ = false;
  std::exception_ptr error_;

  boost::fibers::mutex fiber_mutex_;
  boost::fibers::condition_variable fiber_changed_;
  std::uint64_t finished_ = 0;

  std::thread leader_;
  std::thread helper_;
};

}  // namespace

void boost_fibers::run(unsigned workers, std::function<void()> f) {
  if (workers == 1) {
    std::exception_ptr error;
    std::thread([&] { error = outcome_of(f); }).join();
    if (error) std::rethrow_exception(error);
  } else if (workers == 2) {
    static work_stealing_pair pair;
    pair.run(f);
  } else {
    throw std::invalid_argument("boost_fibers::run: 1 or 2 workers");
  }
}

}  // namespace bench::micro
