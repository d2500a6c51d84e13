#include "strategies/mysql/copy/xbstream_files.h"

#include <algorithm>
#include <array>
#include <utility>

namespace guestagent::mysql {
namespace {

constexpr std::size_t kMaxFile = std::size_t{16} << 20;  // a set of GTIDs may be long

// "ibdata1.qp", "d/t.ibd.lz4.xbcrypt": no file of a server is called so.
std::string_view option_in_name(std::string_view path) {
  constexpr std::array<std::string_view, 8> kEndings = {".ibd", ".cnf", ".frm", ".opt",
                                                        ".MYD", ".MYI", ".sdi", "_logfile"};
  const auto stem_of = [](std::string_view name) { return name.substr(0, name.rfind('.')); };
  const auto ours = [&](std::string_view name) {
    return name.starts_with("ibdata") ||
           std::any_of(kEndings.begin(), kEndings.end(), [&](std::string_view each) { return name.ends_with(each); });
  };
  const auto compressed = [](std::string_view name) {
    return name.ends_with(".qp") || name.ends_with(".lz4") || name.ends_with(".zst");
  };
  const bool encrypted = path.ends_with(".xbcrypt");
  if (encrypted) path = stem_of(path);
  const bool also = compressed(path);
  if (also) path = stem_of(path);
  if ((!encrypted && !also) || !ours(path)) return "";
  return encrypted ? "encrypt" : "compress";
}

}  // namespace

std::optional<std::string> XbstreamFiles::file(std::string_view name) const {
  const auto it = files_.find(name);
  if (it == files_.end() || !it->second.whole || it->second.bad) return std::nullopt;
  return it->second.text;
}

void XbstreamFiles::forget(std::string_view path) {
  if (const auto it = files_.find(path); it != files_.end()) it->second.bad = true;
}

void XbstreamFiles::chunk(const XbstreamChunk& chunk) {
  using Type = XbstreamChunk::Type;
  if (changed_by_.empty()) changed_by_ = option_in_name(chunk.path);
  into_ = std::find(names_.begin(), names_.end(), chunk.path) == names_.end() ? nullptr : &files_[chunk.path];
  switch (chunk.type) {
    case Type::end:
      if (into_ != nullptr) into_->whole = true;
      if (watcher_ != nullptr) watcher_->end(chunk.path);
      return;
    case Type::remove:
      forget(chunk.path);
      if (watcher_ != nullptr) watcher_->removed(chunk.path);
      return;
    case Type::rename:
      forget(chunk.path);
      if (watcher_ != nullptr) watcher_->renamed(chunk.path, chunk.to);
      forget(chunk.to);
      return;
    case Type::seek:
      if (into_ != nullptr) into_->bad = true;
      return;
    default:
      break;
  }
  offset_ = chunk.offset;
  if (into_ == nullptr) return;
  if (chunk.replaces && chunk.offset == 0) *into_ = {};
  if (chunk.type == Type::holes || chunk.offset != into_->text.size() || chunk.size > kMaxFile - chunk.offset) {
    into_->bad = true;
    into_ = nullptr;
  }
}

void XbstreamFiles::data(const XbstreamChunk& chunk, Bytes bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (into_ != nullptr) into_->text += text;
  if (watcher_ != nullptr) watcher_->data(chunk.path, offset_, text);
  offset_ += bytes.size();
}

}  // namespace guestagent::mysql
