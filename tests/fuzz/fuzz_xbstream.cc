// The extractor, fed with anything: whatever the stream says, all that it makes is regular files and directories inside
// of the one directory.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/held_dir.h"
#include "strategies/mysql/copy/xbstream_place.h"
#include "tests/support/bytes.h"
#include "tests/support/test_job.h"

using namespace guestagent;         // NOLINT: a fuzz target is one file
using namespace guestagent::mysql;  // NOLINT

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  static const TempDir top(fs::temp_directory_path(), "fuzz-xbstream-");
  const fs::path dir = top.path() / "staging";
  make_dir(dir, 0700);
  const auto maker = data[0] % 2 == 0 ? XbstreamChunks::Maker::mariadb : XbstreamChunks::Maker::percona;
  const std::uint64_t piece = 1 + data[1];
  try {
    test::StringSource source(std::string(reinterpret_cast<const char*>(data) + 2, size - 2), 64);
    PiecesOf pieces(source, {"xbstream", "", "d"}, piece);
    const HeldDir held(dir);
    PlacedRecord record(held, pieces.kind());
    XbstreamPlacer placer(held, maker, 2, record);
    while (auto next = pieces.next_piece()) placer.take(std::move(*next));
    placer.finish();
    // What was placed whole is found whole.
    test::TestJob job;
    if (!PlacedRecord::found(held, pieces.kind(), job)) std::abort();
  } catch (const Error&) {
  }
  std::size_t entries = 0;
  for (const auto& entry : fs::directory_iterator(top.path())) {
    if (entry.path() != dir && entry.path() != PlacedRecord::path_of(dir)) std::abort();
    ++entries;
  }
  if (entries > 2) std::abort();
  PlacedRecord::forget(dir);
  remove_tree(dir);
  return 0;
}
