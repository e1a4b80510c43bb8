// SPDX-License-Identifier: Apache-2.0
//
// E20's three functions as tendril::task coroutines.
#include <tendril/future.hpp>
#include <tendril/task.hpp>

#include <stdexcept>
#include <string>

namespace bench::code_size {

tendril::task<long> inner(long n);
tendril::task<long> middle(const std::string& name, long n);
tendril::task<std::string> outer(const std::string& name, long n);

tendril::task<long> inner(long n) {
  if (n < 0) throw std::invalid_argument("n is negative");
  co_await tendril::future<void>(tendril::make_ready_future());
  co_return n * 2;
}

tendril::task<long> middle(const std::string& name, long n) {
  long sum = 0;
  for (long i = 0; i != n; ++i) sum += co_await inner(i);
  const std::string copy = name + "!";
  sum += co_await inner(static_cast<long>(copy.size()));
  co_return sum;
}

tendril::task<std::string> outer(const std::string& name, long n) {
  try {
    co_return name + std::to_string(co_await middle(name, n));
  } catch (const std::invalid_argument& e) {
    co_return e.what();
  }
}

}  // namespace bench::code_size
