// The keys of an S3 store. They lie in files that others may replace while the agent runs.
#pragma once

#include <memory>
#include <mutex>

#include "storage/s3/settings.h"
#include "storage/s3/sigv4.h"

namespace guestagent {

// Thread-safe.
class S3Keys {
 public:
  // Throws what reading the files throws.
  explicit S3Keys(const S3Settings& settings);

  std::shared_ptr<const S3Credentials> current();
  // When `refused` was refused: the keys there are now, from files that are read again. `refused` itself where nothing
  // is new, or the files cannot be read (that is logged).
  std::shared_ptr<const S3Credentials> renewed(const std::shared_ptr<const S3Credentials>& refused);

 private:
  std::shared_ptr<const S3Credentials> read() const;

  const S3Settings settings_;
  std::mutex mutex_;
  std::shared_ptr<const S3Credentials> current_;
};

}  // namespace guestagent
