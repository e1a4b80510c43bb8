// SPDX-License-Identifier: Apache-2.0
//
// The example of docs/bridges.md, between the marks, word for word; a test compares them.
#include "support/own_stack.hpp"
#include "support/with_workers.hpp"

#include <tendril/fiber.hpp>
#include <tendril/future.hpp>
#include <tendril/mutex.hpp>
#include <tendril/thunk.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <string>
#include <utility>

namespace {

using std::chrono_literals::operator""ms;

// [docs]
class prices {
 public:
  int find(const std::string& name) {  // fiber code: waits where it must
    const std::scoped_lock hold(mutex_);
    if (const auto known = known_.find(name); known != known_.end()) return known->second;
    tendril::this_fiber::sleep_for(1ms);  // asks somebody
    return known_[name] = static_cast<int>(name.size());
  }
  tendril::future<int> find_async(std::string name) {  // the same for those who want futures
    return tendril::thunk(&prices::find)(this, std::move(name));
  }

 private:
  tendril::mutex mutex_;
  std::map<std::string, int> known_;
};
// [/docs]

std::string text_of(const char* path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

TEST_SUITE("thunk_docs") {
  TEST_CASE("pending at the first call, ready at the second") {
    tendril::test::with_workers([](tendril::runtime& rt) {
      const auto ask = [] {
        prices p;
        auto first = p.find_async("tea");
        std::string seen = first.is_ready() ? "ready " : "pending ";
        seen += std::to_string(first.get());
        auto second = p.find_async("tea");
        seen += second.is_ready() ? " ready " : " pending ";
        return seen + std::to_string(second.get());
      };
      CHECK(tendril::test::run_on_own_stack(rt, ask) == "pending 3 ready 3");
      CHECK(ask() == "pending 3 ready 3");
    });
  }

  TEST_CASE("the page has it word for word") {
    const std::string code = text_of(THUNK_DOCS_SOURCE);
    const std::string begin = "\n// [docs]\n", end = "// [/docs]\n";
    const auto from = code.find(begin), to = code.rfind("\n" + end);
    REQUIRE(from != std::string::npos);
    REQUIRE(to != std::string::npos);
    const auto first = from + begin.size();
    CHECK(text_of(THUNK_DOCS_PAGE).find(code.substr(first, to + 1 - first)) != std::string::npos);
  }
}
