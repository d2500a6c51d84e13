// Looks into a stream of the xbstream format as it goes by, keeps the few small files in it that tell of the copy
// itself, and tells of all the others.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "strategies/mysql/copy/xbstream_chunks.h"
#include "stream/byte_stream.h"

namespace guestagent::mysql {

class XbstreamFiles : private XbstreamChunks::Handler {
 public:
  // What it throws comes out of see().
  class Watcher {
   public:
    virtual ~Watcher() = default;
    virtual void data(std::string_view /*path*/, std::uint64_t /*offset*/, std::string_view /*bytes*/) {}
    virtual void end(std::string_view /*path*/) {}
    virtual void renamed(std::string_view /*from*/, std::string_view /*to*/) {}
    virtual void removed(std::string_view /*path*/) {}
  };
  using Maker = XbstreamChunks::Maker;

  // `watcher`, if any, outlives it.
  explicit XbstreamFiles(std::vector<std::string_view> names, Maker maker = Maker::percona, Watcher* watcher = nullptr)
      : names_(std::move(names)), watcher_(watcher), chunks_(maker) {}

  // The next bytes of the stream. A stream that is not of this format is not followed any further: see lost().
  void see(Bytes data) { chunks_.see(data, *this); }

  // The file of that name, once its end has gone by; nullopt when it has not, was too large to be one of these, or its
  // parts did not follow each other.
  std::optional<std::string> file(std::string_view name) const;
  bool lost() const { return chunks_.lost(); }
  // The tool's option that has changed the files of the stream, as their names show: "compress", "encrypt"; "": none.
  std::string_view changed_by() const { return changed_by_; }
  // As XbstreamChunks says.
  bool at_boundary() const { return chunks_.at_boundary(); }
  std::uint64_t last_end() const { return chunks_.last_end(); }

 private:
  struct File {
    std::string text;
    bool whole = false, bad = false;
  };
  void chunk(const XbstreamChunk& chunk) override;
  void data(const XbstreamChunk& chunk, Bytes bytes) override;
  void forget(std::string_view path);

  const std::vector<std::string_view> names_;
  Watcher* const watcher_;
  std::map<std::string, File, std::less<>> files_;
  std::string_view changed_by_;
  std::uint64_t offset_ = 0;
  File* into_ = nullptr;
  XbstreamChunks chunks_;
};

}  // namespace guestagent::mysql
