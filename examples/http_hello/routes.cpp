// SPDX-License-Identifier: Apache-2.0
#include "routes.hpp"

namespace http_hello {

using boost::beast::http::verb;

std::string_view path_of(std::string_view target) noexcept {
  if (!target.starts_with('/')) {
    const std::size_t scheme = target.find("://");
    if (scheme == target.npos) return {};
    const std::size_t path = target.find_first_of("/?", scheme + 3);
    if (path == target.npos || target[path] == '?') return "/";
    target.remove_prefix(path);
  }
  return target.substr(0, target.find('?'));
}

response route(verb method, std::string_view target) noexcept {
  if (method == verb::unknown) return plain(status::not_implemented);

  const bool whole_server = target == "*" && method == verb::options;
  const std::string_view path = path_of(target);
  if (!whole_server && path != "/plaintext" && path != "/") {
    response r = plain(status::not_found);
    r.head_only = method == verb::head;
    return r;
  }
  switch (method) {
    case verb::get:
      return {.code = status::ok, .body = "Hello, World!"};
    case verb::head:
      return {.code = status::ok, .body = "Hello, World!", .head_only = true};
    case verb::options:
      return {.code = status::no_content, .allow = "GET, HEAD, OPTIONS"};
    default: {
      response r = plain(status::method_not_allowed);
      r.allow = "GET, HEAD, OPTIONS";
      return r;
    }
  }
}

}  // namespace http_hello
