// SPDX-License-Identifier: Apache-2.0
#include "response.hpp"

#include <algorithm>
#include <charconv>

namespace http_hello {
namespace {

std::string_view status_line(status code) noexcept {
  switch (code) {
    case status::ok:
      return "HTTP/1.1 200 OK\r\n";
    case status::no_content:
      return "HTTP/1.1 204 No Content\r\n";
    case status::bad_request:
      return "HTTP/1.1 400 Bad Request\r\n";
    case status::not_found:
      return "HTTP/1.1 404 Not Found\r\n";
    case status::method_not_allowed:
      return "HTTP/1.1 405 Method Not Allowed\r\n";
    case status::request_timeout:
      return "HTTP/1.1 408 Request Timeout\r\n";
    case status::payload_too_large:
      return "HTTP/1.1 413 Content Too Large\r\n";
    case status::uri_too_long:
      return "HTTP/1.1 414 URI Too Long\r\n";
    case status::expectation_failed:
      return "HTTP/1.1 417 Expectation Failed\r\n";
    case status::header_fields_too_large:
      return "HTTP/1.1 431 Request Header Fields Too Large\r\n";
    case status::not_implemented:
      return "HTTP/1.1 501 Not Implemented\r\n";
    case status::version_not_supported:
      return "HTTP/1.1 505 HTTP Version Not Supported\r\n";
  }
  return "HTTP/1.1 500 Internal Server Error\r\n";
}

/// Two digits at `to`.
void two_digits(char* to, unsigned n) noexcept {
  to[0] = static_cast<char>('0' + n / 10 % 10);
  to[1] = static_cast<char>('0' + n % 10);
}

}  // namespace

response plain(status code) noexcept {
  std::string_view words = status_line(code);
  words.remove_prefix(std::string_view("HTTP/1.1 ").size());
  words.remove_suffix(2);
  return {.code = code, .body = words};
}

void date_text::refresh(std::chrono::system_clock::time_point now) {
  using namespace std::chrono;
  const sys_seconds second = floor<seconds>(now);
  if (second == second_) return;
  second_ = second;

  // Not strftime: its names of days depend on the locale.
  constexpr std::string_view days = "SunMonTueWedThuFriSat";
  constexpr std::string_view months = "JanFebMarAprMayJunJulAugSepOctNovDec";
  constexpr std::string_view pattern = "Thu, 01 Jan 1970 00:00:00 GMT";
  const sys_days day = floor<std::chrono::days>(second);
  const year_month_day date(day);
  const hh_mm_ss time(second - day);
  const auto year = static_cast<unsigned>(static_cast<int>(date.year()));
  char* const to = text_.data();
  std::ranges::copy(pattern, to);
  days.copy(to, 3, weekday(day).c_encoding() * 3);
  two_digits(to + 5, static_cast<unsigned>(date.day()));
  months.copy(to + 8, 3, (static_cast<unsigned>(date.month()) - 1) * 3);
  two_digits(to + 12, year / 100);
  two_digits(to + 14, year % 100);
  two_digits(to + 17, static_cast<unsigned>(time.hours().count()));
  two_digits(to + 20, static_cast<unsigned>(time.minutes().count()));
  two_digits(to + 23, static_cast<unsigned>(time.seconds().count()));
}

void render(std::string& out, const response& r, persistence stays, std::string_view date) {
  out += status_line(r.code);
  out += "Server: tendril\r\nDate: ";
  out += date;
  if (!r.allow.empty()) {
    out += "\r\nAllow: ";
    out += r.allow;
  }
  if (stays == persistence::closing) out += "\r\nConnection: close";
  if (stays == persistence::to_be_told) out += "\r\nConnection: keep-alive";
  if (r.code != status::no_content) {  // which has no length (RFC 9110, 8.6)
    char digits[20];
    const auto end = std::to_chars(digits, digits + sizeof digits, r.body.size()).ptr;
    out += "\r\nContent-Type: text/plain\r\nContent-Length: ";
    out.append(digits, end);
  }
  out += "\r\n\r\n";
  if (!r.head_only) out += r.body;
}

}  // namespace http_hello
