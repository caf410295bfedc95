// Evergreen: the headers of libcurl.
// SPDX-License-Identifier: MIT

#if !__has_include(<curl/curl.h>)
#error "curl/curl.h not found: apt-get install libcurl4-openssl-dev"
#endif
#include <curl/curl.h>

// Swift does not see functions with variable arguments.

static inline CURLcode curl_easy_set_long(CURL *handle, CURLoption option, long value) {
  return curl_easy_setopt(handle, option, value);
}

static inline CURLcode curl_easy_set_string(CURL *handle, CURLoption option, const char *value) {
  return curl_easy_setopt(handle, option, value);
}

static inline CURLcode curl_easy_set_pointer(CURL *handle, CURLoption option, void *value) {
  return curl_easy_setopt(handle, option, value);
}

static inline CURLcode curl_easy_set_write(
    CURL *handle, size_t (*write)(char *, size_t, size_t, void *), void *context) {
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, context);
  return curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, write);
}

static inline CURLcode curl_easy_get_long(CURL *handle, CURLINFO info, long *value) {
  return curl_easy_getinfo(handle, info, value);
}
