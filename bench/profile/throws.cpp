// SPDX-License-Identifier: Apache-2.0
//
// One throw, over and over, for a profiler: through so many frames, with or without a destructor in each, in one
// of the models. It measures nothing itself; `./dev profile throws` runs it under callgrind and perf and sorts
// what they count (profile.py). The frames are those of E12 (bench/scenario/deep_calls.hpp).
//
//   tendril-throws --model task --frames 64 --finally --suspend --count 1000
//
// libgcc and libstdc++ are linked statically: the shared ones that distributions ship have no names for the
// functions that most of the time goes to.

#include "bench/models/async1/task.hpp"
#include "bench/models/lean/task.hpp"
#include "bench/scenario/deep_calls.hpp"

#include <tendril/await.hpp>
#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>
#include <tendril/task.hpp>

#include <CLI/CLI.hpp>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

namespace {

namespace deep = bench::deep;
using deep::job;

/// Counts what is caught at the top.
struct throws {
  long wanted;
  long caught = 0;
};

template <class Call>
void run_top(throws& t, const Call& call) {
  for (long i = 0; i != t.wanted; ++i) {
    try {
      call();
    } catch (const deep::failure&) {
      ++t.caught;
    }
  }
}

void run_code(job& j, throws& t) {
  run_top(t, [&j] { deep::run_code<tendril::ambient_mode::flow_up>(j, j.top - 1); });
}

template <class Top, class Frame, class Traits>
Top run_coroutine_top(job& j, throws& t) {
  for (long i = 0; i != t.wanted; ++i) {
    try {
      co_await deep::run_coroutine<Frame, Traits>(j, j.top - 1);
    } catch (const deep::failure&) {
      ++t.caught;
    }
  }
}

/// Runs `body` on a fiber, with another one that does `meanwhile` until it is over.
template <class Body, class Meanwhile>
void beside(const Body& body, const Meanwhile& meanwhile) {
  tendril::run({.workers = 1}, [&] {
    bool over = false;
    tendril::fiber companion([&] {
      while (!over) meanwhile();
    });
    body();
    over = true;
    companion.join();
  });
}

template <class Traits>
void run_tasks(job& j, throws& t) {
  bench::lean::loop loop;
  j.loop = &loop;
  using frame = tendril::task<std::int64_t>;
  beside([&] { tendril::await(run_coroutine_top<tendril::task<>, frame, Traits>(j, t)); },
         [&] {
           if (!loop.run_one()) tendril::this_fiber::yield();
         });
}

struct model {
  const char* name;
  void (*run)(job&, throws&);
};

const std::vector<model> models{
    {"plain", run_code},
    {"fiber",
     [](job& j, throws& t) {
       beside([&] { run_code(j, t); }, [] { tendril::this_fiber::yield(); });
     }},
    {"async1",
     [](job& j, throws& t) {
       bench::async1::thread_pool pool(1);
       pool.run([&] {
         using frame = bench::async1::task<std::int64_t>;
         return run_coroutine_top<bench::async1::task<void>, frame, deep::async1_traits>(j, t);
       });
     }},
    {"task", run_tasks<deep::loop_traits>},
    {"task/passing", run_tasks<deep::passing_traits>},
    {"lean",
     [](job& j, throws& t) {
       bench::lean::loop loop;
       j.loop = &loop;
       using frame = bench::lean::task<std::int64_t>;
       loop.run(run_coroutine_top<bench::lean::task<void>, frame, deep::loop_traits>(j, t));
     }},
};

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> names;
  for (const model& m : models) names.emplace_back(m.name);
  std::string name = "plain";
  long frames = 64;
  long count = 1000;
  bool finally = false;
  bool suspend = false;
  CLI::App app("Throws, for a profiler to look at.", "tendril-throws");
  app.add_option("--model", name, "the model whose frames are unwound")
      ->check(CLI::IsMember(names));
  app.add_option("--frames", frames, "how many frames below the handler")
      ->check(CLI::Range(1, 1000));
  app.add_option("--count", count, "how often")->check(CLI::Range(0, 1'000'000'000));
  app.add_flag("--finally", finally, "a destructor in each frame");
  app.add_flag("--suspend", suspend, "the lowest frame yields once before it throws");
  CLI11_PARSE(app, argc, argv);

  job j{frames, suspend ? 1 : 0, true, finally ? 1 : deep::no_finally, {}};
  throws t{count};
  for (const model& m : models)
    if (name == m.name) m.run(j, t);
  if (t.caught != count) {
    std::fprintf(stderr, "%ld of %ld exceptions were caught\n", t.caught, count);
    return 1;
  }
  return 0;
}
