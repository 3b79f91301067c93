// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
//
// Nods with the wrist of a follower, through the action that MoveIt uses:
//   ros2 run koch_example_cpp nod --ros-args -r __ns:=/follower
#include <algorithm>
#include <chrono>
#include <cmath>
#include <iterator>
#include <memory>
#include <optional>

#include <control_msgs/action/follow_joint_trajectory.hpp>
#include <rclcpp/rclcpp.hpp>
#include <rclcpp_action/rclcpp_action.hpp>
#include <sensor_msgs/msg/joint_state.hpp>
#include <trajectory_msgs/msg/joint_trajectory_point.hpp>

using Follow = control_msgs::action::FollowJointTrajectory;
using sensor_msgs::msg::JointState;

constexpr auto kJoint = "wrist_flex";
constexpr double kNodRad = 0.3;
constexpr double kBeatSeconds = 0.8;

// Down, up, and back; the joints that are not named hold.
Follow::Goal make_goal(double start) {
  Follow::Goal goal;
  goal.trajectory.joint_names = {kJoint};
  double seconds = 0.0;
  for (const double offset : {kNodRad, -kNodRad, 0.0}) {
    trajectory_msgs::msg::JointTrajectoryPoint point;
    point.positions = {start + offset};
    point.velocities = {0.0};
    point.time_from_start = rclcpp::Duration::from_seconds(seconds += kBeatSeconds);
    goal.trajectory.points.push_back(point);
  }
  return goal;
}

int main(int argc, char** argv) {
  rclcpp::init(argc, argv);
  auto node = std::make_shared<rclcpp::Node>("nod");
  std::optional<double> angle;
  // Relative names, so that the arm is chosen by the namespace of this node.
  auto states = node->create_subscription<JointState>(
      "joint_states", rclcpp::SensorDataQoS(), [&angle](const JointState& message) {
        const auto found = std::find(message.name.begin(), message.name.end(), kJoint);
        if (found != message.name.end())  // by name, never by place
          angle = message.position.at(std::distance(message.name.begin(), found));
      });
  auto client = rclcpp_action::create_client<Follow>(node, "arm_controller/follow_joint_trajectory");
  client->wait_for_action_server();
  while (rclcpp::ok() && !angle) {
    rclcpp::spin_some(node);
    rclcpp::sleep_for(std::chrono::milliseconds(10));
  }
  if (!angle) return 1;  // interrupted before the arm was heard

  const double start = *angle;
  auto sent = client->async_send_goal(make_goal(start));
  rclcpp::spin_until_future_complete(node, sent);
  const auto handle = sent.get();
  if (!handle) {
    RCLCPP_ERROR(node->get_logger(), "the driver refused the goal; its log says why");
    return 1;
  }
  auto answer = client->async_get_result(handle);
  rclcpp::spin_until_future_complete(node, answer);
  const auto result = answer.get().result;
  if (result->error_code != Follow::Result::SUCCESSFUL) {
    RCLCPP_ERROR(node->get_logger(), "not done: %s", result->error_string.c_str());
    return 1;
  }
  RCLCPP_INFO(node->get_logger(), "arrived: %s is %.2f rad from its goal", kJoint, std::abs(*angle - start));
  rclcpp::shutdown();
  return 0;
}
