// The files of an xbstream, written by several threads while the stream is read in order.
//
// One thread reads the heads of the chunks and says where their bytes belong; the threads check the bytes against their
// CRC-32 and write them to their places, so that a copy is as fast as the disk and not as one pipe. What changes files
// that were there (a rename, a removal, a replacing) waits for all that came before it.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/held_dir.h"
#include "base/unique_fd.h"
#include "strategies/mysql/copy/placed_record.h"
#include "strategies/mysql/copy/xbstream_chunks.h"
#include "stream/ordered_tasks.h"
#include "stream/piece_source.h"

namespace guestagent::mysql {

// Not thread-safe. All throw data_loss for a stream that is not whole, damaged, or names what no copy has (nothing is
// ever written outside of the directory), resource_exhausted for a full disk or too many open files. Dropping it waits
// for the threads.
class XbstreamPlacer : private XbstreamChunks::Handler {
 public:
  // Into `dir`, which is nobody else's and has what `record` says, and nothing else. Both outlive it. `threads`: 1 and
  // more.
  XbstreamPlacer(const HeldDir& dir, XbstreamChunks::Maker maker, unsigned threads, PlacedRecord& record);
  ~XbstreamPlacer() override;

  // The next piece, in order. Returns when it is on its way; what went wrong with earlier ones is thrown here.
  void take(Piece piece);
  // The stream has ended: all is in its place (not flushed).
  void finish();

 private:
  struct File;
  struct Write;
  struct Batch;
  // A piece whose writes are under way.
  struct Taken {
    std::uint64_t number = 0;
    std::string said;        // for the record
    bool resumable = false;  // it ends with a chunk
    std::vector<std::future<void>> writes;
  };

  void chunk(const XbstreamChunk& chunk) override;
  void data(const XbstreamChunk& chunk, Bytes bytes) override;
  void end_of_chunk(const XbstreamChunk& chunk);
  std::shared_ptr<File> open(const XbstreamChunk& chunk);
  std::shared_ptr<File> create(const std::string& path);
  UniqueFd open_parent(const fs::path& path);
  void end(const std::string& path);
  void rename(const std::string& from, const std::string& to);
  void remove(const std::string& path);
  void place(Bytes bytes);
  void send();
  void settle(bool all);

  const HeldDir& dir_;
  PlacedRecord& record_;
  XbstreamChunks chunks_;
  std::map<std::string, std::shared_ptr<File>, std::less<>> open_;
  std::set<std::string, std::less<>> known_dirs_;

  // Of the chunk whose data comes.
  std::shared_ptr<File> into_;
  std::uint64_t at_ = 0, left_ = 0;
  std::size_t hole_ = 0;
  std::uint64_t left_of_hole_ = 0;
  std::uint32_t crc_ = 0;  // so far, of one that does not lie in one piece
  bool in_one_piece_ = false;

  // Of the piece that is being taken.
  std::shared_ptr<Piece> piece_;
  Bytes seen_;                     // its part that is being looked through
  std::uint64_t before_seen_ = 0;  // bytes of it before that
  std::string said_;
  bool can_be_recorded_ = true;
  std::unique_ptr<Batch> batch_;
  std::deque<Taken> taken_;
  std::vector<std::future<void>> sent_;

  WorkerPool workers_;  // last: its tasks use what stands above
};

}  // namespace guestagent::mysql
