// SPDX-License-Identifier: Apache-2.0
//
// One connection: a loop that reads, answers every request that is complete, writes all the answers at
// once, and reads again. It runs on a fiber of its own, so it looks as if it blocked.
//
//     read --> answer what is complete --> write --+--> close gently, close
//      ^                                           |
//      +-------------------------------------------+
//
// Ways to an end
//  - the client closes, or asks for it (Connection: close, HTTP/1.0);
//  - a request that cannot be answered otherwise: an error response, and close;
//  - nothing moves for idle_timeout. Between requests the close is silent: the client may just be
//    sending the next one, and would take an answer for its own. Within a request, or when the whole of
//    it takes longer than request_timeout, the client is told (408);
//  - the fiber is requested to stop. A request of which something has arrived is still finished, within
//    drain_timeout; then, or at once, the connection is closed.
#pragma once

#include <tendril/fiber.hpp>
#include <tendril/net.hpp>
#include <tendril/scope.hpp>

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "options.hpp"
#include "request_parser.hpp"
#include "response.hpp"

namespace http_hello {

class http_session {
 public:
  /// The options must outlive the session.
  http_session(tendril::net::tcp_stream, const options&);

  /// Returns when the connection has ended, for whatever reason.
  ///
  /// \switch yes
  void run();

 private:
  using time_point = tendril::net::time_point;

  bool answer_what_is_complete();
  void answer(const response&, bool stay);
  bool read_more();
  bool flush();
  void close_gently();

  bool is_stopping();
  void set_request_deadline(time_point);

  std::string_view unread() const noexcept { return {in_.get() + begin_, end_ - begin_}; }
  bool skip_blank_line() noexcept;

  tendril::net::tcp_stream stream_;
  const options& options_;
  const request_limits limits_;
  const std::size_t capacity_;

  std::unique_ptr<char[]> in_;  // [begin_, end_) is read and not yet parsed
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::string out_;

  std::optional<request_parser> request_;  // the one that is arriving
  bool told_to_continue_ = false;
  date_text date_;
  time_point request_deadline_ = tendril::net::no_deadline;

  // Once the fiber was requested to stop. From then on waits end by deadlines alone.
  std::optional<tendril::uncancelable_scope> shield_;
  time_point drain_deadline_ = tendril::net::no_deadline;
};

}  // namespace http_hello
