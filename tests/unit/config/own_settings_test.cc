#include "config/own_settings.h"

#include <gtest/gtest.h>

#include <string>

namespace guestagent {
namespace {

struct Shelf {
  std::string wood = "oak";
  bool operator==(const Shelf&) const = default;
};
struct Drawer {
  int depth = 3;
  bool operator==(const Drawer&) const = default;
};

TEST(OwnSettings, WhatWasNeverSetIsTheDefault) {
  const OwnSettings none;
  EXPECT_EQ(none.get<Shelf>().wood, "oak");
  OwnSettings touched;
  touched.of<Shelf>();
  EXPECT_TRUE(touched == none);
  EXPECT_TRUE(none == touched);
  touched.of<Drawer>().depth = 4;
  EXPECT_FALSE(touched == none);
  EXPECT_FALSE(none == touched);
}

TEST(OwnSettings, IsAValue) {
  OwnSettings one;
  one.of<Shelf>().wood = "elm";
  one.of<Drawer>().depth = 9;
  OwnSettings other = one;
  EXPECT_TRUE(one == other);
  other.of<Shelf>().wood = "ash";
  EXPECT_EQ(one.get<Shelf>().wood, "elm");
  EXPECT_FALSE(one == other);
  one = other;
  EXPECT_EQ(one.get<Shelf>().wood, "ash");
  EXPECT_EQ(one.get<Drawer>().depth, 9);
}

TEST(OwnSettings, AReferenceStaysWhenAnotherTypeComes) {
  OwnSettings own;
  Shelf& shelf = own.of<Shelf>();
  own.of<Drawer>();
  shelf.wood = "pine";
  EXPECT_EQ(own.get<Shelf>().wood, "pine");
}

}  // namespace
}  // namespace guestagent
