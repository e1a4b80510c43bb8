// SPDX-License-Identifier: Apache-2.0
//
// The errors of when_all and when_any.
#include <tendril/when.hpp>

#include <string>
#include <system_error>

namespace tendril {

struct aggregate_error::content {
  std::vector<std::exception_ptr> errors;
  std::string text;
};

namespace {

std::string text_of(const std::exception_ptr& e) {
  try {
    std::rethrow_exception(e);
  } catch (const std::exception& known) {
    return known.what();
  } catch (...) {
    return "an exception of another type than std::exception";
  }
}

}  // namespace

aggregate_error::aggregate_error(std::vector<std::exception_ptr> errors) {
  std::string text = std::to_string(errors.size());
  text += " failures: ";
  for (std::size_t i = 0; i != errors.size(); ++i) {
    if (i != 0) text += "; ";
    text.append("(").append(std::to_string(i + 1)).append(") ").append(text_of(errors[i]));
  }
  content_ = std::make_shared<const content>(content{std::move(errors), std::move(text)});
}
aggregate_error::aggregate_error(const aggregate_error&) noexcept = default;
aggregate_error& aggregate_error::operator=(const aggregate_error&) noexcept = default;
aggregate_error::~aggregate_error() = default;

const char* aggregate_error::what() const noexcept { return content_->text.c_str(); }
const std::vector<std::exception_ptr>& aggregate_error::errors() const noexcept {
  return content_->errors;
}

namespace detail {

void throw_nothing_to_wait_for(const char* what) {
  throw std::system_error(std::make_error_code(std::errc::invalid_argument),
                          std::string(what) + ": no futures, of which one could get ready");
}

std::exception_ptr combine_errors(std::vector<std::exception_ptr> errors) noexcept {
  if (errors.size() == 1) return std::move(errors.front());
  try {
    return std::make_exception_ptr(aggregate_error(std::move(errors)));
  } catch (...) {
    return std::current_exception();
  }
}

}  // namespace detail
}  // namespace tendril
