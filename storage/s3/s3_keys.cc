#include "storage/s3/s3_keys.h"

#include "base/log.h"

namespace guestagent {

S3Keys::S3Keys(const S3Settings& settings) : settings_(settings), current_(read()) {}

std::shared_ptr<const S3Credentials> S3Keys::read() const {
  auto keys = std::make_shared<S3Credentials>();
  keys->access_key =
      settings_.access_key_file.empty() ? settings_.access_key : secret_from_file(settings_.access_key_file).reveal();
  keys->secret_key = secret_from_file(settings_.secret_key_file);
  keys->region = settings_.region;
  if (!settings_.session_token_file.empty()) keys->session_token = secret_from_file(settings_.session_token_file);
  return keys;
}

std::shared_ptr<const S3Credentials> S3Keys::current() {
  const std::lock_guard lock(mutex_);
  return current_;
}

std::shared_ptr<const S3Credentials> S3Keys::renewed(const std::shared_ptr<const S3Credentials>& refused) {
  const std::lock_guard lock(mutex_);
  // Another thread may have newer ones already.
  if (current_ != refused) return current_;
  try {
    const auto fresh = read();
    if (!(*fresh == *current_)) current_ = fresh;
  } catch (const Error& e) {
    log_warning("the store refuses its keys, and their files cannot be read again", {{"why", e.what()}});
  }
  return current_;
}

}  // namespace guestagent
