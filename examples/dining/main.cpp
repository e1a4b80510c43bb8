// SPDX-License-Identifier: Apache-2.0
//
// The dining philosophers, with channels for everything that is shared.
//
// A fork is a channel of capacity 1: holding the fork is having received it, laying it down is sending
// it back. Everybody takes the left fork first, which deadlocks as soon as all have done so; the way
// out is select: who does not get the right fork soon lays the left one down and thinks again. The
// host hears of every meal through one more channel, and closes the restaurant when all have had
// enough: closing is what tells the philosophers who wait for a fork to go home.
//
//     dining [MEALS]          meals to be eaten by each, default 100
#include <tendril/channel.hpp>
#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>
#include <tendril/scope.hpp>
#include <tendril/select.hpp>

#include <array>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <iostream>
#include <memory>
#include <optional>
#include <string_view>
#include <system_error>

namespace {

using namespace std::chrono_literals;

constexpr std::array<std::string_view, 5> names{"Aspasia", "Diogenes", "Hypatia", "Plato", "Zeno"};

struct fork {
  std::size_t number;
};
using place_for_fork = tendril::channel<fork>;

struct meal {
  std::size_t eater;
  std::size_t forks_laid_down;  // in vain, since the last meal
};

/// Eats until the forks are taken away.
void philosopher(std::size_t self, place_for_fork& left, place_for_fork& right,
                 tendril::channel<meal>& meals) {
  std::size_t in_vain = 0;
  while (std::optional<fork> first = left.receive()) {
    std::optional<fork> second;
    tendril::select(tendril::on_receive(right, [&](std::optional<fork> f) { second = f; }),
                    tendril::on_timeout(1ms, [] {}));

    if (second) {
      tendril::this_fiber::yield();  // eating, with time for the neighbours to get hungry
      meals.send(meal{self, in_vain});
      in_vain = 0;
      if (!right.try_send(*second)) return;
    } else {
      ++in_vain;
    }
    // There is room: only one fork ever lies here. What fails is sending to a closed channel.
    if (!left.try_send(*first)) return;
    // Those who laid a fork down at the same time would take it again at the same time.
    tendril::this_fiber::sleep_for(in_vain * self * 100us);
  }
}

int dine(std::size_t wanted) {
  constexpr std::size_t seats = names.size();
  std::array<std::unique_ptr<place_for_fork>, seats> forks;
  for (std::size_t i = 0; i != seats; ++i) {
    forks[i] = std::make_unique<place_for_fork>(1);
    forks[i]->send(fork{i});
  }
  tendril::channel<meal> meals(seats);

  // A scope: when it ends, so have all philosophers, whatever happens in between.
  tendril::task_scope table;
  for (std::size_t i = 0; i != seats; ++i) {
    table.spawn([&, i] { philosopher(i, *forks[i], *forks[(i + 1) % seats], meals); });
  }

  std::array<std::size_t, seats> eaten{};
  std::size_t satisfied = 0;
  std::size_t in_vain = 0;
  while (satisfied != seats) {
    const meal m = *meals.receive();
    in_vain += m.forks_laid_down;
    if (++eaten[m.eater] == wanted) {
      ++satisfied;
      std::cout << names[m.eater] << " has eaten " << wanted << " times\n";
    }
  }
  for (auto& f : forks) f->close();
  while (meals.try_receive()) {
  }
  // Nobody sends more than one meal now, and there is room for one each.
  table.join();
  std::cout << "forks laid down in vain: " << in_vain << '\n';
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::size_t meals = 100;
  if (argc > 1) {
    const char* const end = argv[1] + std::strlen(argv[1]);
    const auto [stop, error] = std::from_chars(argv[1], end, meals);
    if (error != std::errc() || stop != end || meals == 0 || argc > 2) {
      std::cerr << "usage: dining [MEALS]\n";
      return 2;
    }
  }
  return tendril::run([=] { return dine(meals); });
}
