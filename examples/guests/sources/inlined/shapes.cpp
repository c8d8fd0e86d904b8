#include "shapes.h"

namespace scene {

namespace {

struct Roots {
    float nearest;
    bool real;
};

// Of x² + 2·half·x + rest.
inline Roots solve(float half, float rest) {
    float discriminant = half * half - rest;
    if (discriminant < 0) return {0, false};
    return {-half - geometry::square_root(discriminant), true};
}

}  // namespace

float Sphere::hit(const Ray &ray) const {
    auto to_origin = ray.origin - center;
    auto roots = solve(to_origin.dot(ray.direction), to_origin.dot(to_origin) - radius * radius);
    return roots.real ? roots.nearest : -1;
}

geometry::Point Sphere::normal(const geometry::Point &surface) const { return normalized(surface - center); }

float Floor::hit(const Ray &ray) const {
    float slope = ray.direction.components[1];
    return slope < 0 ? (height - ray.origin.components[1]) / slope : -1;
}

geometry::Point Floor::normal(const geometry::Point &) const { return {{0, 1, 0}}; }

}  // namespace scene
