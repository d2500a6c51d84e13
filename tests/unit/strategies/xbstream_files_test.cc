#include "strategies/mysql/copy/xbstream_files.h"

#include <gtest/gtest.h>

#include "tests/support/xbstream.h"

namespace guestagent::mysql {
namespace {

const auto head = [](char type, const std::string& path) { return test::xbstream_head(type, path); };
const auto data = [](const std::string& path, const std::string& bytes, std::uint64_t offset = 0) {
  return test::xbstream_data(path, bytes, offset);
};
const auto end = [](const std::string& path) { return test::xbstream_end(path); };
template <typename T>
std::string little(T value) {
  return test::xbstream_number(value);
}
// All of it comes after the last hole.
std::string sparse(const std::string& path, const std::string& bytes, std::uint32_t holes) {
  std::vector<std::pair<std::uint32_t, std::uint32_t>> map(holes, {4096, 0});
  map.back().second = static_cast<std::uint32_t>(bytes.size());
  return test::xbstream_holes(path, bytes, map);
}

XbstreamFiles seen(const std::string& stream, std::size_t step) {
  XbstreamFiles files({"info", "position"});
  for (std::size_t at = 0; at < stream.size(); at += step)
    files.see(as_bytes(std::string_view(stream).substr(at, step)));
  return files;
}

TEST(XbstreamFiles, FilesAreFoundHoweverTheStreamIsCut) {
  const std::string stream = data("d/t.ibd", std::string(1000, 'x')) + data("./info", "one ") +
                             sparse("d/u.ibd", "XBSTCK01", 3) + data("position", "p\t4\n") + data("info", "two", 4) +
                             end("d/t.ibd") + end("position") + end("info") + data("empty", "") + end("empty");
  for (const std::size_t step : {1, 2, 3, 7, 13, 14, 15, 100, 100000}) {
    const XbstreamFiles files = seen(stream, step);
    EXPECT_EQ(files.file("info"), "one two") << step;
    EXPECT_EQ(files.file("position"), "p\t4\n") << step;
    EXPECT_TRUE(files.at_boundary()) << step;
  }
}

TEST(XbstreamFiles, AFileIsWholeOrNotThere) {
  EXPECT_FALSE(seen(data("info", "one"), 5).file("info"));
  EXPECT_FALSE(seen(data("info", "one", 3) + end("info"), 5).file("info"));  // its beginning is missing
  EXPECT_FALSE(
      seen(data("info", "one") + data("info", "two", 4) + end("info"), 5).file("info"));  // and here its middle
  EXPECT_FALSE(seen(sparse("info", "one", 1) + end("info"), 5).file("info"));
  EXPECT_FALSE(seen(data("other", "one") + end("other"), 5).file("other"));
}

TEST(XbstreamFiles, AStreamOfAnotherKindIsLostAndACutOneIsNoticed) {
  EXPECT_TRUE(seen(std::string(600, 't'), 100).lost());
  EXPECT_TRUE(seen(head('X', "info"), 100).lost());
  EXPECT_TRUE(seen(std::string("XBSTCK01") + '\0' + 'P' + little(std::uint32_t{100000}), 3).lost());
  const std::string stream = data("info", "one") + end("info");
  for (std::size_t size = 1; size < stream.size(); ++size) {
    const bool after_the_first = size == data("info", "one").size();
    EXPECT_EQ(seen(stream.substr(0, size), 4).at_boundary(), after_the_first) << size;
  }
  EXPECT_TRUE(seen("", 1).at_boundary());
}

const auto renamed = [](const std::string& from, const std::string& to) { return test::xbstream_move(from, to); };

std::string replacing(std::string chunk) {
  chunk[8] = 2;
  return chunk;
}

class Recorder : public XbstreamFiles::Watcher {
 public:
  void data(std::string_view, std::uint64_t offset, std::string_view bytes) override {
    for (std::size_t i = 0; i < bytes.size(); ++i) said += std::to_string(offset + i) + bytes[i];
  }
  void end(std::string_view) override { said += "."; }
  void renamed(std::string_view from, std::string_view to) override {
    said += std::string(from) + ">" + std::string(to);
  }
  void removed(std::string_view path) override { said += "-" + std::string(path); }
  std::string said;
};

TEST(XbstreamFiles, EachChunkIsToldAsItGoesBy) {
  const std::string stream = data("a", "xy") + head('S', "a") + little(std::uint64_t{7}) + data("a", "z", 7) +
                             end("a") + renamed("./a", "d/b") + head('D', "d/b") + replacing(data("c", "w")) + end("c");
  for (const std::size_t step : {1, 2, 3, 7, 100000}) {
    Recorder recorder;
    XbstreamFiles files({}, XbstreamFiles::Maker::mariadb, &recorder);
    for (std::size_t at = 0; at < stream.size(); at += step)
      files.see(as_bytes(std::string_view(stream).substr(at, step)));
    EXPECT_TRUE(files.at_boundary()) << step;
    EXPECT_EQ(recorder.said, "0x1y7z.a>d/b-d/b0w.") << step;
  }
}

TEST(XbstreamFiles, WhatTheOtherMakersToolReadsDifferentlyIsLost) {
  const auto lost = [](const std::string& stream, XbstreamFiles::Maker maker) {
    XbstreamFiles files({}, maker);
    files.see(as_bytes(stream));
    return files.lost();
  };
  for (const auto maker : {XbstreamFiles::Maker::mariadb, XbstreamFiles::Maker::percona}) {
    // What nobody needs to know is left out, and what is known stays what it is.
    std::string ignorable = data("a", "x");
    ignorable[8] = 1;
    EXPECT_FALSE(lost(ignorable, maker));
    ignorable[9] = 'Q';
    EXPECT_FALSE(lost(ignorable + end("a"), maker));
    ignorable[8] = 3;
    EXPECT_TRUE(lost(ignorable, maker));
    EXPECT_TRUE(lost(replacing(end("a")), maker));
    EXPECT_TRUE(lost(head('Q', "a"), maker));
  }
  for (const std::string& stream : {renamed("a", "b"), head('D', "a"), replacing(data("a", "x"))}) {
    EXPECT_TRUE(lost(stream, XbstreamFiles::Maker::percona));
    EXPECT_FALSE(lost(stream, XbstreamFiles::Maker::mariadb));
  }
  EXPECT_TRUE(lost(head('R', "a") + little(std::uint32_t{0}), XbstreamFiles::Maker::mariadb));
  EXPECT_TRUE(lost(head('R', "a") + little(std::uint32_t{5000}), XbstreamFiles::Maker::mariadb));
}

TEST(XbstreamFiles, AKeptFileMayBeReplacedAndNotMoved) {
  const auto kept = [](const std::string& stream) {
    XbstreamFiles files({"info"}, XbstreamFiles::Maker::mariadb);
    files.see(as_bytes(stream));
    return files.file("info");
  };
  EXPECT_EQ(kept(data("info", "one") + end("info") + replacing(data("info", "two")) + end("info")), "two");
  EXPECT_FALSE(kept(data("info", "one") + end("info") + head('D', "info")));
  EXPECT_FALSE(kept(data("info", "one") + end("info") + renamed("info", "other")));
  EXPECT_FALSE(kept(data("info", "one") + end("info") + data("x", "y") + end("x") + renamed("x", "info")));
}

TEST(XbstreamFiles, AHugeFileOfThatNameIsNotKept) {
  XbstreamFiles files({"info"});
  files.see(as_bytes(head('P', "info") + little(std::uint64_t{1} << 40) + little(std::uint64_t{0}) +
                     little(std::uint32_t{0})));
  files.see(as_bytes(std::string(1 << 20, 'x')));
  EXPECT_FALSE(files.file("info"));
  EXPECT_FALSE(files.lost());
}

}  // namespace
}  // namespace guestagent::mysql
