#include "stream/buffer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/bytes.h"

namespace guestagent {
namespace {

using test::random_bytes;

TEST(Buffer, KeepsBytesAcrossChunks) {
  const std::string bytes = random_bytes(3 * kChunkBytes + 17, 1);
  Buffer buffer;
  for (std::size_t at = 0; at < bytes.size(); at += 70001)
    buffer.append(as_bytes(std::string_view(bytes).substr(at, 70001)));
  EXPECT_EQ(buffer.size(), bytes.size());
  EXPECT_EQ(buffer.text(), bytes);
  const std::vector<Bytes> chunks = buffer.chunks();
  ASSERT_EQ(chunks.size(), 4U);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(chunks[i].size(), kChunkBytes);
  EXPECT_EQ(chunks[3].size(), 17U);
}

TEST(Buffer, AFullChunkIsFollowedByNoEmptyOne) {
  Buffer buffer = Buffer::from(random_bytes(kChunkBytes, 2));
  EXPECT_EQ(buffer.chunks().size(), 1U);
  EXPECT_FALSE(buffer.room().empty());
  EXPECT_EQ(buffer.chunks().size(), 1U) << "room that nothing was put into is no chunk";
  EXPECT_EQ(buffer.pop_front().size(), kChunkBytes);
  EXPECT_TRUE(buffer.empty());
  EXPECT_TRUE(buffer.pop_front().empty());
}

TEST(Buffer, RoomAndCommitAppend) {
  Buffer buffer;
  std::string expected;
  for (char c = 'a'; c < 'e'; ++c) {
    std::span<std::byte> room = buffer.room();
    const std::size_t n = std::min<std::size_t>(room.size(), 600000);
    std::fill_n(room.begin(), n, static_cast<std::byte>(c));
    buffer.commit(n);
    expected.append(n, c);
  }
  EXPECT_EQ(buffer.text(), expected);
}

TEST(Buffer, PopFrontTakesChunksInOrderAndMoveEmptiesTheOther) {
  const std::string bytes = random_bytes(2 * kChunkBytes + 5, 3);
  Buffer first = Buffer::from(bytes);
  Buffer buffer = std::move(first);
  EXPECT_TRUE(first.empty());  // NOLINT(bugprone-use-after-move): what a moved-from buffer is, is part of the contract
  EXPECT_EQ(first.text(), "");
  first.append(as_bytes("again"));
  EXPECT_EQ(first.text(), "again");
  std::string joined;
  while (!buffer.empty()) joined += buffer.pop_front().text();
  EXPECT_EQ(joined, bytes);
  buffer.append(as_bytes("more"));
  EXPECT_EQ(buffer.text(), "more");
  buffer.clear();
  EXPECT_EQ(buffer.size(), 0U);
}

TEST(Buffer, SplitGivesTheRestAway) {
  const std::string bytes = random_bytes(3 * kChunkBytes + 17, 4);
  for (const std::uint64_t at :
       {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{kChunkBytes} - 1, std::uint64_t{kChunkBytes},
        std::uint64_t{kChunkBytes} + 1, std::uint64_t{3 * kChunkBytes} + 16, std::uint64_t{bytes.size()}}) {
    Buffer first = Buffer::from(bytes);
    Buffer rest = first.split(at);
    EXPECT_EQ(first.text(), bytes.substr(0, at)) << at;
    EXPECT_EQ(rest.text(), bytes.substr(at)) << at;
    EXPECT_LE(rest.chunks().size(), 4U);
    // Both go on as if nothing had been.
    first.append(as_bytes("more"));
    EXPECT_EQ(first.text(), bytes.substr(0, at) + "more") << at;
    rest.append(as_bytes(bytes));
    EXPECT_EQ(rest.text(), bytes.substr(at) + bytes) << at;
    Buffer last = rest.split(rest.size() / 2);
    std::string joined;
    for (Buffer* part : {&rest, &last}) {
      while (!part->empty()) joined += part->pop_front().text();
    }
    EXPECT_EQ(joined, bytes.substr(at) + bytes) << at;
  }
}

std::uint64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::uint64_t pages = 0;
  std::uint64_t resident = 0;
  statm >> pages >> resident;
  return resident * 4096;
}

TEST(Buffer, MemoryGoesBackToTheSystem) {
  const std::uint64_t before = resident_bytes();
  const auto touched = [](std::size_t chunks) {
    Buffer buffer;
    for (std::size_t i = 0; i < chunks; ++i) {
      std::span<std::byte> room = buffer.room();
      std::fill(room.begin(), room.end(), std::byte{1});
      buffer.commit(room.size());
    }
    return buffer;
  };
  { const Buffer large = touched(kFreeChunks + 100); }
  EXPECT_LE(resident_bytes(), before + (kFreeChunks + 8) * kChunkBytes) << "more is kept than the cap";
  release_free_chunks();
  EXPECT_LE(resident_bytes(), before + 8 * kChunkBytes);
}

TEST(Buffer, TheSharedChunksStandManyThreads) {
  std::vector<std::thread> threads;
  for (unsigned seed = 0; seed < 8; ++seed) {
    threads.emplace_back([seed] {
      for (unsigned round = 0; round < 30; ++round) {
        const std::string bytes(2 * kChunkBytes + round, static_cast<char>('a' + seed));
        Buffer buffer = Buffer::from(bytes);
        std::this_thread::yield();
        EXPECT_EQ(buffer.text(), bytes);
        if (round % 10 == 0) release_free_chunks();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace guestagent
