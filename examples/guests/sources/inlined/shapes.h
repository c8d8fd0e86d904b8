// What a ray can hit. The calls are virtual and their targets live in another file, so they stay calls.
#pragma once

#include "vector.h"

namespace scene {

struct Ray {
    geometry::Point origin;
    geometry::Point direction;

    geometry::Point at(float distance) const { return origin + direction * distance; }
};

class Shape {
  public:
    // How far along the ray the shape is hit; negative if it is not.
    virtual float hit(const Ray &ray) const = 0;
    virtual geometry::Point normal(const geometry::Point &surface) const = 0;

  protected:
    ~Shape() = default;
};

class Sphere final : public Shape {
  public:
    constexpr Sphere(geometry::Point center, float radius) : center(center), radius(radius) {}
    float hit(const Ray &ray) const override;
    geometry::Point normal(const geometry::Point &surface) const override;

  private:
    geometry::Point center;
    float radius;
};

class Floor final : public Shape {
  public:
    constexpr explicit Floor(float height) : height(height) {}
    float hit(const Ray &ray) const override;
    geometry::Point normal(const geometry::Point &surface) const override;

  private:
    float height;
};

}  // namespace scene
