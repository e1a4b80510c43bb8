// SPDX-License-Identifier: Apache-2.0
//
// E20's three functions as async1 methods.
#include "bench/models/async1/task.hpp"

#include <stdexcept>
#include <string>

namespace bench::code_size {

async1::task<long> inner(long n);
async1::task<long> middle(const std::string& name, long n);
async1::task<std::string> outer(const std::string& name, long n);

async1::task<long> inner(long n) {
  if (n < 0) throw std::invalid_argument("n is negative");
  co_await async1::yield{};
  co_return n * 2;
}

async1::task<long> middle(const std::string& name, long n) {
  long sum = 0;
  for (long i = 0; i != n; ++i) sum += co_await inner(i);
  const std::string copy = name + "!";
  sum += co_await inner(static_cast<long>(copy.size()));
  co_return sum;
}

async1::task<std::string> outer(const std::string& name, long n) {
  try {
    co_return name + std::to_string(co_await middle(name, n));
  } catch (const std::invalid_argument& e) {
    co_return e.what();
  }
}

}  // namespace bench::code_size
