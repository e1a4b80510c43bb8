// SPDX-License-Identifier: Apache-2.0
//
// What the server does with a request.
#pragma once

#include <boost/beast/http/message.hpp>
#include <boost/beast/http/string_body.hpp>

#include "pool.hpp"
#include "stores.hpp"

namespace greetings {

struct stores {
  pool<database> databases;
  pool<cache> caches;
};

using request = boost::beast::http::request<boost::beast::http::string_body>;
using response = boost::beast::http::response<boost::beast::http::string_body>;

/// GET /greetings/NAME   from the cache, else from the database and then kept for ten seconds
/// GET /visits           one more each time
///
/// 503 and the reason if a store fails; 400, 404, 405 as usual.
response answer(const request& asked, stores& from);

}  // namespace greetings
