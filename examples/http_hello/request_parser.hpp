// SPDX-License-Identifier: Apache-2.0
//
// One request, parsed by Boost.Beast as its bytes arrive. Of the message only what the answer depends
// on is kept, so that nothing is allocated: the target is looked up while Beast shows it to us, bodies
// are dropped piece by piece.
//
// Beast checks the grammar, Content-Length, chunking and the limit on the body. Added here, because
// Beast leaves it to its user:
//  - the limit on the header is one for all of it. Beast's holds for what one call to put() sees, and
//    header lines that arrive one by one are consumed one by one;
//  - Host: exactly one in HTTP/1.1, at most one in HTTP/1.0 (RFC 9112, 3.2);
//  - a Transfer-Encoding that does not end in chunked leaves the end of the request unknown; Beast would
//    take the body for the next request. Nor is one allowed in HTTP/1.0 (RFC 9112, 6.1 and 6.3);
//  - chunk extensions are limited: they count for nothing against the body's limit.
#pragma once

#include <boost/beast/http/basic_parser.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "response.hpp"

namespace http_hello {

struct request_limits {
  std::uint32_t header_bytes;
  std::uint64_t body_bytes;
};

class request_parser final : private boost::beast::http::basic_parser<true> {
  using base = boost::beast::http::basic_parser<true>;

 public:
  enum class progress { incomplete, complete, rejected };

  explicit request_parser(const request_limits& limits);

  /// Takes the next bytes, not none; `used` is how many belonged to this request and shall not be shown
  /// again. Those of an unfinished line must be shown again, with more behind them.
  progress feed(std::string_view bytes, std::size_t& used);

  /// Once rejected: why. Once the header is complete: the answer to the request.
  const response& answer() const noexcept { return answer_; }

  // Once the header is complete:
  bool is_header_complete() const { return base::is_header_done(); }
  bool keeps_alive() const { return base::keep_alive(); }
  bool is_http_1_0() const noexcept { return version_ == 10; }
  /// Nothing of the body has come, and the client sends none until it is told to.
  bool awaits_continue() const noexcept { return expects_continue_ && !body_begun_; }

 private:
  using verb = boost::beast::http::verb;
  using field = boost::beast::http::field;
  using string_view = boost::beast::string_view;
  using error_code = boost::beast::error_code;

  void on_request_impl(verb, string_view method, string_view target, int version,
                       error_code&) override;
  void on_field_impl(field, string_view name, string_view value, error_code&) override;
  void on_header_impl(error_code&) override;
  void on_body_init_impl(const boost::optional<std::uint64_t>&, error_code&) override {}
  std::size_t on_body_impl(string_view body, error_code&) override;
  void on_chunk_header_impl(std::uint64_t size, string_view extensions, error_code&) override;
  std::size_t on_chunk_body_impl(std::uint64_t remain, string_view body, error_code&) override;
  void on_finish_impl(error_code&) override {}
  // The other kind of message; a pure virtual function all the same.
  void on_response_impl(int, string_view, int, error_code&) override {}

  progress reject(status);
  progress reject(const error_code&, std::string_view bytes);

  const request_limits& limits_;
  std::size_t header_used_ = 0;
  std::size_t extensions_used_ = 0;
  response answer_{};
  int version_ = 11;
  unsigned hosts_ = 0;
  bool has_transfer_encoding_ = false;
  bool expects_continue_ = false;
  bool expects_more_ = false;  // than we know of
  bool body_begun_ = false;
};

}  // namespace http_hello
