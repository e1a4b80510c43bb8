// SPDX-License-Identifier: Apache-2.0
//
// E20's three functions as ordinary code, for threads and fibers.
#include <tendril/fiber.hpp>

#include <stdexcept>
#include <string>

namespace bench::code_size {

long inner(long n);
long middle(const std::string& name, long n);
std::string outer(const std::string& name, long n);

long inner(long n) {
  if (n < 0) throw std::invalid_argument("n is negative");
  tendril::this_fiber::yield();
  return n * 2;
}

long middle(const std::string& name, long n) {
  long sum = 0;
  for (long i = 0; i != n; ++i) sum += inner(i);
  const std::string copy = name + "!";
  sum += inner(static_cast<long>(copy.size()));
  return sum;
}

std::string outer(const std::string& name, long n) {
  try {
    return name + std::to_string(middle(name, n));
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
}

}  // namespace bench::code_size
