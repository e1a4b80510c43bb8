// SPDX-License-Identifier: Apache-2.0
#include "request_parser.hpp"

#include <boost/beast/core/string.hpp>
#include <boost/beast/http/error.hpp>

#include "routes.hpp"

namespace http_hello {
namespace {

namespace beast = boost::beast;

std::string_view std_view(beast::string_view text) noexcept { return {text.data(), text.size()}; }

/// Beast has one error for a version that it cannot read and one that it does not speak. The request
/// line decides which: it is not consumed before it is whole and right.
bool names_some_version(std::string_view bytes) noexcept {
  const std::string_view line = bytes.substr(0, bytes.find('\r'));
  const std::size_t target_end = line.find(' ', line.find(' ') + 1);
  if (target_end == line.npos) return false;
  const std::string_view version = line.substr(target_end + 1);
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  return version.size() == 8 && version.starts_with("HTTP/") && digit(version[5]) &&
         version[6] == '.' && digit(version[7]);
}

}  // namespace

request_parser::request_parser(const request_limits& limits) : limits_(limits) {
  header_limit(limits.header_bytes);
  body_limit(limits.body_bytes);
}

request_parser::progress request_parser::feed(std::string_view bytes, std::size_t& used) {
  error_code ec;
  used = 0;
  if (!is_header_done()) {
    // Without eager(), which makes put() stop behind the header: so its length is known.
    used = put({bytes.data(), bytes.size()}, ec);
    header_used_ += used;
    const bool needs_more = ec == beast::http::error::need_more;
    if (ec && !needs_more) return reject(ec, bytes);
    const std::size_t unfinished = is_header_done() ? 0 : bytes.size() - used;
    if (header_used_ + unfinished > limits_.header_bytes) {
      return reject(beast::http::error::header_limit, bytes);
    }
    if (needs_more) return progress::incomplete;
    if (is_done()) return progress::complete;
    eager(true);
    bytes.remove_prefix(used);
    if (bytes.empty()) return progress::incomplete;
  }

  const std::size_t body_used = put({bytes.data(), bytes.size()}, ec);
  used += body_used;
  if (ec && ec != beast::http::error::need_more) return reject(ec, bytes);
  // What is left begins with the head of a chunk or the trailer.
  if (bytes.size() - body_used >= limits_.header_bytes) {
    return reject(status::header_fields_too_large);
  }
  return is_done() ? progress::complete : progress::incomplete;
}

void request_parser::on_request_impl(verb method, string_view, string_view target, int version,
                                     error_code&) {
  version_ = version;
  answer_ = route(method, std_view(target));
}

void request_parser::on_field_impl(field name, string_view, string_view value, error_code&) {
  if (is_header_done()) return;  // a trailer
  switch (name) {
    case field::host:
      ++hosts_;
      break;
    case field::expect:
      (beast::iequals(value, "100-continue") ? expects_continue_ : expects_more_) = true;
      break;
    case field::transfer_encoding:
      has_transfer_encoding_ = true;
      break;
    default:
      break;
  }
}

void request_parser::on_header_impl(error_code& ec) {
  const bool old = is_http_1_0();
  if (hosts_ > 1 || (hosts_ == 0 && !old)) {
    ec = beast::http::error::bad_field;
  } else if (has_transfer_encoding_ && (old || !chunked())) {
    ec = beast::http::error::bad_transfer_encoding;
  } else if (old) {
    expects_continue_ = false;  // came with HTTP/1.1 (RFC 9110, 10.1.1)
  } else if (expects_more_) {
    reject(status::expectation_failed);
  }
}

std::size_t request_parser::on_body_impl(string_view body, error_code&) {
  body_begun_ = true;
  return body.size();
}

void request_parser::on_chunk_header_impl(std::uint64_t, string_view extensions, error_code& ec) {
  body_begun_ = true;
  extensions_used_ += extensions.size();
  if (extensions_used_ > limits_.header_bytes) ec = beast::http::error::bad_chunk_extension;
}

std::size_t request_parser::on_chunk_body_impl(std::uint64_t, string_view body, error_code&) {
  return body.size();
}

request_parser::progress request_parser::reject(status why) {
  const bool head_only = answer_.head_only;
  answer_ = plain(why);
  answer_.head_only = head_only;
  return progress::rejected;
}

request_parser::progress request_parser::reject(const error_code& ec, std::string_view bytes) {
  using beast::http::error;
  if (ec == error::header_limit) {
    // Nothing is consumed before the request line is complete.
    return reject(header_used_ == 0 ? status::uri_too_long : status::header_fields_too_large);
  }
  if (ec == error::body_limit) return reject(status::payload_too_large);
  if (ec == error::bad_version && names_some_version(bytes)) {
    return reject(status::version_not_supported);
  }
  return reject(status::bad_request);
}

}  // namespace http_hello
