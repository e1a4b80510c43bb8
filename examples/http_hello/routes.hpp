// SPDX-License-Identifier: Apache-2.0
//
// What this server has to say: the one file to change for another one.
#pragma once

#include <boost/beast/http/verb.hpp>

#include <string_view>

#include "response.hpp"

namespace http_hello {

/// The path of a request target: "/path?query", or "http://host/path?query" as sent to proxies (and
/// RFC 9112, 3.2.2 wants servers to understand it). Empty for other forms.
std::string_view path_of(std::string_view target) noexcept;

response route(boost::beast::http::verb method, std::string_view target) noexcept;

}  // namespace http_hello
