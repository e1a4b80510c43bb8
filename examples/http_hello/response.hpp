// SPDX-License-Identifier: Apache-2.0
//
// Responses and how they are written. A response is a handful of views of constant text; rendering
// appends it to a string that keeps its memory from batch to batch, so answering allocates nothing.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>

namespace http_hello {

enum class status : unsigned {
  ok = 200,
  no_content = 204,
  bad_request = 400,
  not_found = 404,
  method_not_allowed = 405,
  request_timeout = 408,
  payload_too_large = 413,
  uri_too_long = 414,
  expectation_failed = 417,
  header_fields_too_large = 431,
  not_implemented = 501,
  version_not_supported = 505,
};

struct response {
  status code = status::ok;
  std::string_view body = {};
  std::string_view allow = {};  ///< empty: no such field
  bool head_only = false;       ///< the length of the body is told, the body is not sent
};

/// A response whose body says its status in words.
response plain(status) noexcept;

enum class persistence {
  implied,     ///< HTTP/1.1, and the connection stays
  to_be_told,  ///< HTTP/1.0: staying has to be said
  closing,
};

/// The text of the Date field, made anew when the second changes. Each connection has its own: shared
/// ones would need a lock, and thread_local is no help where a fiber may change threads at any wait.
class date_text {
 public:
  /// Asks the clock. Once a batch of responses is enough.
  void refresh(std::chrono::system_clock::time_point now = std::chrono::system_clock::now());
  std::string_view view() const noexcept { return {text_.data(), text_.size()}; }

 private:
  std::chrono::sys_seconds second_{};
  std::array<char, sizeof "Thu, 01 Jan 1970 00:00:00 GMT" - 1> text_{};
};

inline constexpr std::string_view continue_response = "HTTP/1.1 100 Continue\r\n\r\n";

void render(std::string& out, const response&, persistence, std::string_view date);

}  // namespace http_hello
