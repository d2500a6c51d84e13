// Static large objects: one address for many objects in order.
#pragma once

#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "storage/swift/swift_session.h"

namespace guestagent {

// Thread-safe.
class LargeObjects {
 public:
  // `root` is "/container/prefix/", encoded; `plain_root` the same as it is.
  LargeObjects(SwiftSession& session, std::string root, std::string plain_root, HttpHeaders headers);

  // Stores the manifest `name` of `parts`, with manifests of manifests ("NAME.part-000001") where the cluster
  // allows fewer in one. False when the cluster has no static large objects or there is nothing to join.
  bool join(std::string_view name, const std::vector<ObjectInfo>& parts, std::stop_token stop);

 private:
  std::size_t most_segments(std::stop_token stop);
  bool put_manifest(const std::string& name, const ObjectInfo* parts, std::size_t count, std::stop_token stop);

  SwiftSession& session_;
  const std::string root_, plain_root_;
  const HttpHeaders headers_;
  std::mutex mutex_;
  std::optional<std::size_t> most_segments_;  // of one manifest, 0: none at all
};

}  // namespace guestagent
