#include "stream/codec.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "base/file.h"
#include "stream/zstd_frame.h"
#include "tests/support/bytes.h"
#include "tests/support/errors.h"

namespace guestagent {
namespace {

using test::code_of;
using test::page_bytes;
using test::random_bytes;

constexpr Codec kAll[] = {Codec::none, Codec::zstd, Codec::lz4, Codec::gzip};
constexpr Codec kPacking[] = {Codec::zstd, Codec::lz4, Codec::gzip};

std::string packed(Codec codec, std::string_view raw, int level = 0) {
  return compress(codec, level, Buffer::from(raw)).text();
}
std::string unpacked(Codec codec, std::string_view stored, std::uint64_t raw_size) {
  return decompress(codec, Buffer::from(stored), raw_size).text();
}

TEST(Codec, NamesGoThereAndBack) {
  for (const Codec codec : kAll) EXPECT_EQ(codec_from(codec_name(codec)), codec);
  EXPECT_EQ(codec_suffix(Codec::zstd), "zst");
  EXPECT_EQ(codec_suffix(Codec::none), "");
  EXPECT_EQ(code_of([] { codec_from("bzip2"); }), "INVALID_ARGUMENT");
}

TEST(Codec, RoundTripsEverySizeAndLevel) {
  for (const Codec codec : kAll) {
    for (const std::size_t size :
         {std::size_t{0}, std::size_t{1}, std::size_t{127}, std::size_t{131072}, kChunkBytes, 5 * kChunkBytes + 3}) {
      for (const std::string& raw : {random_bytes(size, 7), page_bytes(size, 8), std::string(size, '\0')}) {
        for (const int level : {0, 1, 3, 9}) {
          if (level > 1 && size > kChunkBytes) continue;
          EXPECT_EQ(unpacked(codec, packed(codec, raw, level), size), raw) << codec_name(codec) << ' ' << size;
        }
      }
    }
  }
}

TEST(Codec, SameBytesInSameBytesOut) {
  const std::string raw = page_bytes(300000, 9);
  for (const Codec codec : kAll) EXPECT_EQ(packed(codec, raw), packed(codec, raw));
}

TEST(Codec, CompressesWell) {
  const std::string raw = page_bytes(4 * kChunkBytes, 10);
  EXPECT_LT(packed(Codec::zstd, raw).size(), raw.size() * 6 / 10);
}

// The promise that a snapshot can be read without us: frames joined are a file of the stock tool.
TEST(Codec, StockToolsReadJoinedFrames) {
  const TempDir dir("/tmp", "guestagent-codec-");
  for (const Codec codec : kPacking) {
    const std::string tool(codec_name(codec));
    std::string raw;
    const fs::path file = dir.path() / ("joined." + tool);
    {
      std::ofstream joined(file, std::ios::binary);
      for (const std::size_t size :
           {std::size_t{1500000}, std::size_t{1}, std::size_t{0}, 2 * kChunkBytes, std::size_t{77}}) {
        const std::string part = page_bytes(size, size + 1);
        raw += part;
        joined << packed(codec, part);
      }
    }
    const fs::path out = dir.path() / ("raw." + tool);
    const std::string command = tool + " -d < " + file.string() + " > " + out.string();
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
    EXPECT_EQ(read_file(out, 64 << 20), raw) << tool;
  }
}

TEST(Codec, CutAnywhereIsDataLoss) {
  const std::string raw = page_bytes(3000, 11);
  for (const Codec codec : kAll) {
    const std::string stored = packed(codec, raw);
    for (std::size_t size = 0; size < stored.size(); ++size) {
      EXPECT_EQ(code_of([&] { unpacked(codec, stored.substr(0, size), raw.size()); }), "DATA_LOSS")
          << codec_name(codec) << " cut at " << size << " of " << stored.size();
    }
  }
}

TEST(Codec, WhatFollowsTheFrameIsDataLoss) {
  const std::string raw = page_bytes(200000, 12);
  for (const Codec codec : kPacking) {
    const std::string stored = packed(codec, raw);
    for (const std::string& tail : {std::string(1, '\0'), std::string("garbage!"), stored, packed(codec, "x")}) {
      EXPECT_EQ(code_of([&] { unpacked(codec, stored + tail, raw.size()); }), "DATA_LOSS") << codec_name(codec);
    }
  }
  EXPECT_EQ(code_of([&] { unpacked(Codec::zstd, packed(Codec::zstd, raw) + packed(Codec::zstd, ""), raw.size()); }),
            "DATA_LOSS");
}

TEST(Codec, AnotherSizeIsDataLoss) {
  const std::string raw = page_bytes(200000, 13);
  for (const Codec codec : kAll) {
    const std::string stored = packed(codec, raw);
    for (const std::uint64_t size : {std::uint64_t{0}, raw.size() - 1, raw.size() + 1, std::uint64_t{1} << 40}) {
      EXPECT_EQ(code_of([&] { unpacked(codec, stored, size); }), "DATA_LOSS") << codec_name(codec) << ' ' << size;
    }
  }
}

TEST(Codec, AnotherCodecIsDataLoss) {
  const std::string raw = page_bytes(5000, 14);
  for (const Codec made : kAll) {
    for (const Codec read : kPacking) {
      if (made == read) continue;
      EXPECT_EQ(code_of([&] { unpacked(read, packed(made, raw), raw.size()); }), "DATA_LOSS")
          << codec_name(made) << " read as " << codec_name(read);
    }
  }
}

// A gigabyte of zeros in a few kilobytes must end at the size that was announced, not in memory.
TEST(Codec, ABombEndsAtItsAnnouncedSize) {
  Buffer zeros;
  for (int i = 0; i < 256; ++i) zeros.append(as_bytes(std::string(kChunkBytes, '\0')));
  Buffer bomb = compress(Codec::zstd, 1, std::move(zeros));
  EXPECT_LT(bomb.size(), kChunkBytes);
  const Error error = test::error_of([&] { decompress(Codec::zstd, std::move(bomb), 1000); });
  EXPECT_EQ(error.code(), Code::data_loss);
  EXPECT_NE(std::string(error.what()).find("more than the 1000 bytes"), std::string::npos) << error.what();
}

TEST(ZstdFrame, RefusesAWindowLargerThanItsContent) {
  std::string frame = packed(Codec::zstd, page_bytes(200000, 15));
  ASSERT_EQ(static_cast<unsigned char>(frame[4]) & 0x20, 0) << "a frame with a window descriptor";
  check_zstd_frame(Buffer::from(frame), 200000);
  frame[5] = static_cast<char>((27 - 10) << 3);
  const Error error = test::error_of([&] { check_zstd_frame(Buffer::from(frame), 200000); });
  EXPECT_NE(std::string(error.what()).find("more memory"), std::string::npos);
  check_zstd_frame(Buffer::from(frame), std::uint64_t{1} << 27);
}

TEST(ZstdFrame, FollowsFramesOfTheStockTool) {
  const TempDir dir("/tmp", "guestagent-zstd-");
  const fs::path raw = dir.path() / "raw";
  write_file_atomic(raw, page_bytes(3000000, 16));
  for (const std::string options : {"-1", "-3 --no-check", "-19", "-1 -T2", "-1 --no-content-size"}) {
    const fs::path out = dir.path() / "out.zst";
    ASSERT_EQ(std::system(("zstd -q -f " + options + " " + raw.string() + " -o " + out.string()).c_str()), 0);
    EXPECT_EQ(unpacked(Codec::zstd, read_file(out, 16 << 20), 3000000), read_file(raw, 16 << 20)) << options;
  }
}

}  // namespace
}  // namespace guestagent
