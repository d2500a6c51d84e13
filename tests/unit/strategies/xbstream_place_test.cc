// Chunks placed by several threads, and gone on with after an interruption.
#include "strategies/mysql/copy/xbstream_place.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <memory>
#include <thread>

#include "base/error.h"
#include "tests/support/bytes.h"
#include "tests/support/errors.h"
#include "tests/support/test_job.h"
#include "tests/support/xbstream.h"

namespace guestagent::mysql {
namespace {

using namespace test;  // NOLINT: builders of chunks
using Files = std::map<std::string, std::string>;
using Maker = XbstreamChunks::Maker;

std::string some_bytes(std::size_t size, unsigned seed) {
  std::string out(size, '\0');
  for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<char>((i * 2654435761U + seed * 40503U) >> 13);
  return out;
}

class XbstreamPlace : public testing::Test {
 protected:
  XbstreamPlace() { make_dir(dir_, 0700); }

  // `pieces` of them at most, as if the process died then.
  void place(const std::string& stream, std::size_t piece_bytes = 100, unsigned threads = 4,
             Maker maker = Maker::mariadb, std::size_t pieces = SIZE_MAX) {
    const HeldDir held(dir_);
    auto found = PlacedRecord::found(held, kKind, job_);
    if (!found) found.emplace(PlacedRecord(held, kKind));
    went_on_ = found->placed().pieces;
    StringSource source(stream, 1000);
    PiecesOf from(source, kKind, piece_bytes);
    from.skip(went_on_);
    XbstreamPlacer placer(held, maker, threads, *found);
    while (auto piece = from.next_piece()) {
      if (pieces-- == 0) return;
      placer.take(std::move(*piece));
    }
    placer.finish();
  }

  Files files() {
    Files out;
    for (const auto& entry : fs::recursive_directory_iterator(dir_)) {
      if (entry.is_regular_file()) out[fs::relative(entry.path(), dir_)] = read_file(entry.path(), 1 << 30);
    }
    return out;
  }
  std::size_t recorded() {
    const std::string text = read_file(PlacedRecord::path_of(dir_));
    return static_cast<std::size_t>(std::count(text.begin(), text.end(), '='));
  }
  void start_again() {
    PlacedRecord::forget(dir_);
    remove_tree(dir_);
    make_dir(dir_, 0700);
  }
  Code refused(const std::string& stream, Maker maker = Maker::mariadb) {
    const Code code = error_of([&] { place(stream, 64, 2, maker); }).code();
    start_again();
    return code;
  }

  TempDir top_{fs::temp_directory_path(), "place-"};
  const fs::path dir_ = top_.path() / "staging";
  const PieceSource::Kind kKind{"xbstream", "mariadb-backup 10.11.19", "sha256:1"};
  std::uint64_t went_on_ = 0;
  TestJob job_;
};

// Several files at once, as a tool with several threads writes them.
std::string mixed(Files& expected, int files = 6, int parts = 5) {
  std::string stream;
  for (int part = 0; part < parts; ++part) {
    for (int file = 0; file < files; ++file) {
      const std::string path = (file % 2 ? "d" + std::to_string(file) + "/" : "") + "t" + std::to_string(file) + ".ibd";
      const std::string content = some_bytes(300 + 700 * static_cast<unsigned>(part * file % 5), part * 10U + file);
      stream += xbstream_data(path, content, expected[path].size());
      expected[path] += content;
      if (part + 1 == parts) stream += xbstream_end(path);
    }
  }
  stream += xbstream_end("d1/empty.opt");
  expected["d1/empty.opt"] = "";
  return stream;
}

TEST_F(XbstreamPlace, TheSameFilesHoweverTheStreamIsCut) {
  Files expected;
  const std::string stream = mixed(expected);
  for (const std::size_t piece : {13UL, 1000UL, 1UL << 20}) {
    for (const unsigned threads : {1U, 4U}) {
      place(stream, piece, threads);
      EXPECT_EQ(files(), expected) << piece << " " << threads;
      start_again();
    }
  }
}

// Memory for one piece: what was written must be let go of although nobody asks after it.
TEST_F(XbstreamPlace, PiecesAreLetGoOfWhenTheyAreWritten) {
  Files expected;
  StringSource source(mixed(expected), 1000);
  PiecesOf from(source, kKind, 1000);
  const HeldDir held(dir_);
  PlacedRecord record(held, kKind);
  XbstreamPlacer placer(held, Maker::mariadb, 2, record);
  std::weak_ptr<void> before;
  while (auto piece = from.next_piece()) {
    for (int i = 0; i < 2000 && !before.expired(); ++i) std::this_thread::sleep_for(Millis(5));
    ASSERT_TRUE(before.expired());
    piece->room = std::make_shared<int>(0);
    before = piece->room;
    placer.take(std::move(*piece));
  }
  placer.finish();
  EXPECT_EQ(files(), expected);
}

TEST_F(XbstreamPlace, HolesStayHoles) {
  const std::string a = some_bytes(4096, 1), b = some_bytes(4096, 2);
  place(xbstream_holes("t.ibd", a + b, {{0, 4096}, {8 << 20, 4096}, {1 << 20, 0}}) +
            xbstream_data("t.ibd", "end", (9 << 20) + 8192) + xbstream_end("t.ibd"),
        1000, 2, Maker::percona);
  Files out = files();
  ASSERT_EQ(out["t.ibd"].size(), (9U << 20) + 8192 + 3);
  EXPECT_EQ(out["t.ibd"].substr(0, 4096), a);
  EXPECT_EQ(out["t.ibd"].substr((8 << 20) + 4096, 4096), b);
  EXPECT_EQ(std::count(out["t.ibd"].begin() + 4096, out["t.ibd"].begin() + 4096 + (8 << 20), '\0'), 8 << 20);
  struct stat info {};
  ASSERT_EQ(::stat((dir_ / "t.ibd").c_str(), &info), 0);
  EXPECT_LT(info.st_blocks * 512, 1 << 20);
  start_again();

  place(xbstream_data("s.ibd", a) + xbstream_seek("s.ibd", 5 << 20) + xbstream_data("s.ibd", b, 5 << 20) +
        xbstream_seek("s.ibd", 6 << 20) + xbstream_end("s.ibd"));
  out = files();
  ASSERT_EQ(out["s.ibd"].size(), 6U << 20);
  EXPECT_EQ(out["s.ibd"].substr(5 << 20, 4096), b);
}

TEST_F(XbstreamPlace, WhatChangesWhileTheToolRunsIsDoneInOrder) {
  place(xbstream_data("a", "one") + xbstream_end("a") + xbstream_data("b", "two") + xbstream_move("a", "d/c") +
        xbstream_data("b", "three", 3) + xbstream_end("b") + xbstream_data("a", "new") + xbstream_end("a") +
        xbstream_head('D', "b") + xbstream_data("d/c", "other", 0, 2) + xbstream_end("d/c") +
        xbstream_head('D', "nothing"));
  EXPECT_EQ(files(), (Files{{"a", "new"}, {"d/c", "other"}}));
}

TEST_F(XbstreamPlace, WhatIsNotWholeIsRefused) {
  const std::string good = xbstream_data("a", "data") + xbstream_end("a");
  const auto flipped = [](std::string stream, std::size_t from_end) {
    stream[stream.size() - from_end] ^= 1;
    return stream;
  };
  EXPECT_EQ(refused(flipped(good, xbstream_end("a").size() + 1)), Code::data_loss) << "a byte of the data";
  EXPECT_EQ(refused(flipped(xbstream_holes("a", "data", {{8, 4}}), 5) + xbstream_end("a"), Maker::percona),
            Code::data_loss)
      << "a byte of the list of holes";
  EXPECT_EQ(refused(xbstream_data("a", "data")), Code::data_loss) << "no end";
  EXPECT_EQ(refused(good.substr(0, good.size() - 3)), Code::data_loss) << "cut";
  EXPECT_EQ(refused(good + good), Code::data_loss) << "twice";
  EXPECT_EQ(refused(good + xbstream_end("a")), Code::data_loss) << "twice, empty";
  EXPECT_EQ(refused(good + xbstream_data("a/b", "x") + xbstream_end("a/b")), Code::data_loss) << "in a file";
  EXPECT_EQ(refused(xbstream_data("d/a", "x") + xbstream_end("d/a") + xbstream_data("d", "x") + xbstream_end("d")),
            Code::data_loss)
      << "a directory";
  EXPECT_EQ(refused(xbstream_data("a", "x", 1) + xbstream_end("a")), Code::data_loss) << "begins late";
  EXPECT_EQ(refused(xbstream_data("a", "xy") + xbstream_data("a", "z", 1) + xbstream_end("a")), Code::data_loss)
      << "overlaps";
  EXPECT_EQ(refused(xbstream_data("a", "xy") + xbstream_seek("a", 1) + xbstream_end("a")), Code::data_loss) << "back";
  EXPECT_EQ(refused(xbstream_head('P', "a") + xbstream_number(~std::uint64_t{0}) + xbstream_number(std::uint64_t{0}) +
                    xbstream_number(std::uint32_t{0})),
            Code::data_loss)
      << "size";
  EXPECT_EQ(
      refused(xbstream_head('S', "a") + xbstream_number(~std::uint32_t{0}) + std::string(20, '\0'), Maker::percona),
      Code::data_loss)
      << "number of holes";
  EXPECT_EQ(refused(xbstream_holes("a", "data", {}), Maker::percona), Code::data_loss) << "no place for it";
  EXPECT_EQ(refused(xbstream_move("no", "a")), Code::data_loss) << "moves what is not there";
  EXPECT_EQ(refused(xbstream_data("../a", "x") + xbstream_end("../a")), Code::data_loss);
  EXPECT_FALSE(fs::exists(top_.path() / "a"));
}

// Chunks of one size, so that a piece can be one of them.
std::string even(Files& expected, unsigned chunks, std::size_t& chunk_bytes) {
  std::string stream;
  for (unsigned i = 0; i < chunks; ++i) {
    const std::string path = "d/t" + std::to_string(i % 3) + ".ibd";
    const std::string content = some_bytes(400, i);
    stream += xbstream_data(path, content, expected[path].size());
    expected[path] += content;
  }
  chunk_bytes = stream.size() / chunks;
  for (const auto& [path, content] : expected) stream += xbstream_end(path);
  return stream;
}

TEST_F(XbstreamPlace, AfterEachPieceTheRestIsEnough) {
  Files expected;
  std::size_t chunk = 0;
  const std::string stream = even(expected, 12, chunk);
  for (const std::size_t piece : {chunk, 2 * chunk, 2 * chunk + 1}) {
    std::uint64_t most = 0;
    const std::size_t pieces = (stream.size() + piece - 1) / piece;
    // Pieces are recorded once their threads are done, which on a busy machine may be never in time.
    const int most_tries = piece % chunk == 0 ? 50 : 1;
    for (std::size_t n = 0; n < pieces * (most == 0 ? most_tries : 1); ++n) {
      const std::size_t died = n % pieces;
      place(stream, piece, 2, Maker::mariadb, died);
      place(stream, piece, 2);
      EXPECT_LE(went_on_, died);
      most = std::max(most, went_on_);
      EXPECT_EQ(files(), expected) << died;
      start_again();
    }
    // In the middle of a chunk nobody can begin.
    EXPECT_EQ(most > 0, piece % chunk == 0);
  }
}

// Pieces that end with a chunk are what a writer makes; what lies in them is believed only as far as it is read back.
TEST_F(XbstreamPlace, WhatWasDamagedMeanwhileIsFetchedAgain) {
  Files expected;
  std::size_t piece = 0;
  const std::string stream = even(expected, 8, piece);

  const auto flip = [&](const fs::path& path, std::streamoff at) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(at);
    const char old = static_cast<char>(file.get());
    file.seekp(at);
    file.put(static_cast<char>(old ^ 4));
  };
  const fs::path t0 = dir_ / "d/t0.ibd";
  struct Case {
    const char* what;
    std::function<void()> damage;
    std::uint64_t most;  // pieces that may be believed after it
  };
  const std::vector<Case> cases = {
      {"nothing", [] {}, 6},
      {"a byte", [&] { flip(t0, 10); }, 0},
      {"a byte of a later part", [&] { flip(t0, 500); }, 3},
      {"cut", [&] { fs::resize_file(t0, 100); }, 0},
      {"longer", [&] { fs::resize_file(t0, 100000); }, 6},
      {"gone", [&] { fs::remove(t0); }, 0},
      {"a link", [&] { fs::rename(t0, top_.path() / "o"), fs::create_symlink(top_.path() / "o", t0); }, 0},
      {"a stranger", [&] { std::ofstream(dir_ / "d/stranger.ibd") << "x"; }, 6},
      {"all gone", [&] { remove_tree(dir_), make_dir(dir_, 0700); }, 0},
      {"record cut", [&] { fs::resize_file(PlacedRecord::path_of(dir_), 200); }, 5},
      {"record", [&] { flip(PlacedRecord::path_of(dir_), 120); }, 5},
      {"record of another stream", [&] { flip(PlacedRecord::path_of(dir_), 36); }, 0},
      {"record is a link",
       [&] {
         fs::rename(PlacedRecord::path_of(dir_), top_.path() / "r");
         fs::create_symlink(top_.path() / "r", PlacedRecord::path_of(dir_));
       },
       0},
  };
  for (const Case& each : cases) {
    SCOPED_TRACE(each.what);
    // Pieces are recorded once their threads are done.
    for (int tries = 0; tries == 0 || (recorded() < 5 && tries < 1000); ++tries) {
      start_again();
      place(stream, piece, 1, Maker::mariadb, 6);
    }
    each.damage();
    {
      // What is not for this stream is nobody's to go on with.
      const HeldDir held(dir_);
      if (!PlacedRecord::is_for(dir_, kKind)) start_again();
    }
    place(stream, piece, 2);
    EXPECT_LE(went_on_, each.most);
    if (each.most == 6) EXPECT_GE(went_on_, 5U);
    EXPECT_EQ(files(), expected);
    start_again();
    fs::remove(top_.path() / "o");
    fs::remove(top_.path() / "r");
  }
}

}  // namespace
}  // namespace guestagent::mysql
