// SPDX-License-Identifier: Apache-2.0
#include "options.hpp"

#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

namespace http_hello {

const char* const usage =
    "usage: http_hello [HOST:PORT] [option...]\n"
    "\n"
    "HOST is an address (127.0.0.1, [::1], 0.0.0.0); port 0 takes a free one. Default "
    "127.0.0.1:8080.\n"
    "\n"
    "  --workers N             threads, 0 to 64; 0, the default: one per processor\n"
    "  --idle-timeout SECONDS  closes a connection on which nothing moves (default 60)\n"
    "  --request-timeout SECONDS  from the first byte of a request to its last (default 30)\n"
    "  --drain-timeout SECONDS what requests in flight get after SIGTERM or SIGINT (default 10)\n"
    "  --max-header BYTES      largest request line and header, 256 to 1048576 (default 8192)\n"
    "  --max-body BYTES        largest request body (default 1048576)\n"
    "  --help\n";

namespace {

[[noreturn]] void reject(std::string_view option, std::string_view value, std::string_view wanted) {
  std::string text(option);
  ((text += ": '") += value) += "' is not ";
  throw bad_option(text += wanted);
}

template <class Number>
bool parse_whole(std::string_view text, Number& number) {
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  return error == std::errc() && stop == end;
}

template <class Number>
Number number(std::string_view option, std::string_view value, Number least, Number most) {
  Number n{};
  if (!parse_whole(value, n) || n < least || n > most) {
    reject(option, value, "a number from " + std::to_string(least) + " to " + std::to_string(most));
  }
  return n;
}

std::chrono::nanoseconds seconds(std::string_view option, std::string_view value) {
  constexpr double least = 0.001;
  constexpr double most = 86'400;
  double n{};
  // Compared this way round, a NaN is rejected too.
  if (!parse_whole(value, n) || !(n >= least && n <= most)) {
    reject(option, value, "a number of seconds from 0.001 to 86400");
  }
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::duration<double>(n));
}

}  // namespace

options parse_options(int argc, const char* const* argv) {
  options chosen;
  bool have_address = false;
  for (int i = 1; i < argc; ++i) {
    std::string_view name = argv[i];
    if (name == "--help" || name == "-h") {
      chosen.help = true;
      return chosen;
    }
    if (!name.starts_with('-')) {
      if (have_address) throw bad_option("more than one address: '" + std::string(name) + "'");
      std::error_code ec;
      chosen.address = tendril::net::endpoint::parse(name, ec);
      if (ec) reject("address", name, "HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080");
      have_address = true;
      continue;
    }

    // --name VALUE or --name=VALUE
    std::optional<std::string_view> given;
    if (const auto equals = name.find('='); equals != name.npos) {
      given = name.substr(equals + 1);
      name = name.substr(0, equals);
    }
    const auto value = [&] {
      if (given) return *given;
      if (i + 1 == argc) throw bad_option(std::string(name) + " needs a value");
      return std::string_view(argv[++i]);
    };
    if (name == "--workers") {
      chosen.workers = number<unsigned>(name, value(), 0, 64);
    } else if (name == "--idle-timeout") {
      chosen.idle_timeout = seconds(name, value());
    } else if (name == "--request-timeout") {
      chosen.request_timeout = seconds(name, value());
    } else if (name == "--drain-timeout") {
      chosen.drain_timeout = seconds(name, value());
    } else if (name == "--max-header") {
      chosen.header_bytes = number<std::uint32_t>(name, value(), 256, 1024 * 1024);
    } else if (name == "--max-body") {
      chosen.body_bytes = number<std::uint64_t>(name, value(), 0, std::uint64_t{1} << 40);
    } else {
      throw bad_option("unknown option '" + std::string(name) + "'; --help shows them all");
    }
  }
  return chosen;
}

}  // namespace http_hello
