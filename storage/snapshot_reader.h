// manifest -> [get -> verify -> (decrypt) -> decompress -> verify] x workers -> in order -> stream
#pragma once

#include <memory>
#include <string>

#include "base/job_context.h"
#include "config/settings.h"
#include "storage/object_store.h"
#include "storage/snapshot_format.h"
#include "storage/throttle.h"
#include "stream/piece_source.h"

namespace guestagent {

// A snapshot as a stream that is verified before it is seen: a byte reaches read()'s caller only after its segment's
// stored and raw digests were right, and the end (0) only after the totals and the digest over all were. Everything
// else is an Error: data_loss names the object and what is wrong with it.
class SnapshotReader : public PieceSource {
 public:
  // Reads and checks the manifest. not_found when there is none at `href`, permission_denied when `href` is not under
  // `store` (no request is made, no credential sent). `store`, `job` and `throttle` outlive the reader.
  SnapshotReader(ObjectStore& store, std::string_view href, const SnapshotSettings& settings, Throttle& throttle,
                 JobContext& job);
  ~SnapshotReader() override;

  const Manifest& manifest() const;
  std::size_t read(std::span<std::byte> into) override;
  // A piece is a segment.
  const Kind& kind() const override;
  std::optional<Piece> next_piece() override;
  std::uint64_t skip(std::uint64_t pieces) override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace guestagent
