// SPDX-License-Identifier: Apache-2.0
#include <tendril/error.hpp>

namespace tendril {
namespace {

class category final : public std::error_category {
 public:
  const char* name() const noexcept override { return "tendril"; }
  std::string message(int value) const override {
    switch (static_cast<errc>(value)) {
      case errc::no_runtime:
        return "no runtime is running: start one with tendril::run or tendril::runtime";
      case errc::runtime_stopping:
        return "the runtime is shutting down and starts no more fibers";
      case errc::invalid_option:
        return "an option is out of range";
      case errc::would_deadlock:
        return "the call would wait for itself";
      case errc::channel_closed:
        return "the channel is closed";
    }
    return "unknown tendril error " + std::to_string(value);
  }
};

}  // namespace

const std::error_category& error_category() noexcept {
  static const category instance;
  return instance;
}

}  // namespace tendril
