// SPDX-License-Identifier: Apache-2.0
//
// state_life and race_word, every interleaving: a state is destroyed once, by who sees all that others did
// with it; a stop request touches the producer's things only while they are there; a hook runs at most once
// and never when the result's room is the result's; one finishes a race, when the links are in place.
#include <tendril/detail/state_life.hpp>
#include <tendril/when.hpp>

#include <doctest/doctest.h>

#include <cstddef>

#include "model/explorer.hpp"
#include "model/weakened_atomics.hpp"

namespace {

using namespace tendril;
using model::model_atomics;

using life_word = detail::basic_state_life<model_atomics>;
using last_reader = life_word::last_reader;
using request_result = life_word::request_result;

/// What the word guards.
template <class Life = life_word>
struct state {
  using last_reader = typename Life::last_reader;
  using request_result = typename Life::request_result;

  Life life;
  model::plain<int> result{0};    // the producer's, then the destroyer's
  model::plain<int> producer{0};  // what a request looks at; written when the producer has gone
  model::plain<int> destroyed{0};
  model::atomic<int> requests{0};

  void destroy() {
    static_cast<void>(result.get());
    destroyed.set(destroyed.get() + 1);
  }
  void reader_goes() {
    if (life.release_reader() == last_reader::destroy) destroy();
  }
  void request() {
    if (life.request() != request_result::locked) return;
    static_cast<void>(producer.get());
    requests.fetch_add(1);
    life.unlock();
  }
};

/// A producer and two readers, each of which asks it to stop and goes.
template <class Life>
model::result last_one(const char* name) {
  return model::explore(name, [](model::execution& run) {
    state<Life> s;
    s.life.add_reader();
    const auto reader = [&] {
      s.request();
      s.reader_goes();
    };
    const bool done = run.threads({[&] {
                                     s.result.set(1);
                                     if (s.life.release_producer()) s.destroy();
                                     s.producer.set(1);  // its control block is another fiber's
                                   },
                                   reader, reader});
    if (!done) return;
    run.check(s.destroyed.get() == 1, "destroyed once");
    run.check(s.requests.load() <= 1, "asked once at most");
  });
}

TEST_SUITE("state_life") {
  TEST_CASE("the last of a producer and two readers destroys, after a request of each reader") {
    const auto found = last_one<life_word>("state_life: last one");
    CAPTURE(found.failure);
    CHECK(found.passed());
  }

  TEST_CASE("without release or acquire the end does not see what was done") {
    CHECK_FALSE(last_one<detail::basic_state_life<model::no_release>>("state_life: no release")
                    .failure.empty());
    CHECK_FALSE(last_one<detail::basic_state_life<model::no_acquire>>("state_life: no acquire")
                    .failure.empty());
  }

  TEST_CASE("who closes has what the lock guards to itself") {
    const auto found = model::explore("state_life: close", [](model::execution& run) {
      state<> s;
      int noted = 0;
      const bool done = run.threads({[&] {
                                       s.life.close();
                                       s.producer.set(1);
                                       noted = s.life.open() ? 1 : 0;
                                       s.life.close();
                                       s.producer.set(2);
                                       if (s.life.release_producer()) s.destroy();
                                     },
                                     [&] {
                                       s.request();
                                       if (s.life.lock_if_open()) {
                                         static_cast<void>(s.producer.get());
                                         s.life.unlock();
                                       }
                                       s.reader_goes();
                                     }});
      if (!done) return;
      run.check(s.destroyed.get() == 1, "destroyed once");
    });
    CAPTURE(found.failure);
    CHECK(found.passed());
  }

  TEST_CASE("a hook runs once or not at all, and never into the result") {
    const auto found = model::explore("state_life: hook", [](model::execution& run) {
      state<> s;
      model::plain<int> room{0};  // 1: the hook, 2: the result
      model::atomic<int> ran{0};
      model::atomic<int> taken{0};
      const auto take_and_unlock = [&]() -> bool {
        if (!s.life.is_hooked()) {
          s.life.unlock();
          return false;
        }
        model::check(room.get() == 1, "the hook is there");
        s.life.unlock_unhooked();
        return true;
      };
      const bool done =
          run.threads({[&] {  // the promise: on_cancel, set_value, its end
                         s.life.lock();
                         if (s.life.is_requested() || !s.life.has_readers()) {
                           s.life.unlock();
                           ran.fetch_add(1);
                         } else {
                           room.set(1);
                           if (!s.life.unlock_hooked()) {
                             s.life.lock();
                             if (take_and_unlock()) ran.fetch_add(1);
                           }
                         }
                         s.life.lock();
                         if (take_and_unlock()) taken.fetch_add(1);
                         room.set(2);
                         if (s.life.release_producer()) s.destroy();
                       },
                       [&] {  // the future's end
                         last_reader how = s.life.release_reader();
                         if (how == last_reader::has_hook) {
                           if (s.life.request() == request_result::locked && take_and_unlock())
                             ran.fetch_add(1);
                           how = s.life.release_reader();
                           model::check(how != last_reader::has_hook, "no hook after the request");
                         }
                         if (how == last_reader::destroy) s.destroy();
                       }});
      if (!done) return;
      run.check(s.destroyed.get() == 1, "destroyed once");
      run.check(ran.load() + taken.load() == 1, "the hook was run, or taken out unrun");
      run.check(room.get() == 2, "the result is the last in the room");
    });
    CAPTURE(found.failure);
    CHECK(found.passed());
  }

  TEST_CASE("a look after the unlock finds what has gone") {
    const auto found = model::explore("state_life: no lock", [](model::execution& run) {
      state<> s;
      static_cast<void>(run.threads({[&] {
                                       s.life.close();
                                       s.producer.set(1);
                                     },
                                     [&] {
                                       if (s.life.request() != request_result::locked) return;
                                       s.life.unlock();  // too early
                                       static_cast<void>(s.producer.get());
                                     }}));
    });
    CHECK_FALSE(found.failure.empty());
  }
}

TEST_SUITE("race_word") {
  TEST_CASE("one finishes, when all links are in place, and sees the winner's result") {
    const auto found = model::explore("race_word", [](model::execution& run) {
      using race_word = detail::basic_race_word<model::atomic<std::size_t>>;
      race_word word;
      model::plain<int> links{0};
      model::plain<int> results[2];
      model::plain<int> finished{0};
      const auto finish = [&] {
        model::check(links.get() == 2, "the links are in place");
        model::check(results[word.winner()].get() == 1, "the winner is ready");
        finished.set(finished.get() + 1);
      };
      const auto arrive = [&](std::size_t i) {
        results[i].set(1);
        if (word.win(i) == race_word::win_result::finish) finish();
      };
      const bool done = run.threads({[&] {
                                       links.set(2);
                                       if (word.arm()) finish();
                                     },
                                     [&] { arrive(0); }, [&] { arrive(1); }});
      if (done) run.check(finished.get() == 1, "finished once");
    });
    CAPTURE(found.failure);
    CHECK(found.passed());
  }
}

}  // namespace
