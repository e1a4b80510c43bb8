// SPDX-License-Identifier: Apache-2.0
//
// A front of another version than any runtime: preloaded, in the place of the real one. Without
// INTERCEPT_OTHER_VERSION_TELLS it is one from before fronts told their version.
#include "platform/intercept.hpp"

using namespace tendril::platform;

extern "C" {
install_result tendril_intercept_install(std::uint64_t version, const intercept_hooks* hooks,
                                         install_answer* answer);
install_result tendril_intercept_install(std::uint64_t, const intercept_hooks* hooks,
                                         install_answer* answer) {
  if (hooks == nullptr) return install_result::installed;
  *answer = {};
  answer->front = "/opt/other/libtendril_intercept.so";
  return install_result::other_version;
}
#ifdef INTERCEPT_OTHER_VERSION_TELLS
extern const char tendril_intercept_version[];
const char tendril_intercept_version[] = "9.8.7 (symbols 0123456789abcdef)";
#endif
}
