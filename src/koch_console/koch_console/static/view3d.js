// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
// The 3D view: arms from their primitives, ghost, path of the tool, views of the cameras.
// It draws only when something has moved.

import * as THREE from "./vendor/three.module.min.js";

const PATH_POINTS = 600; // a minute at ten a second
const FRUSTUM_M = 0.12;
const GHOST = 0x5aa2f0;

/** A view in an element; `show({arm: {joint: rad}})` moves the arms. */
export class View3d {
  constructor(place, scene) {
    this.place = place;
    this.world = new THREE.Scene();
    this.world.background = new THREE.Color(0x12161b);
    this.world.add(new THREE.HemisphereLight(0xffffff, 0x445566, 2.2));
    const sun = new THREE.DirectionalLight(0xffffff, 1.6);
    sun.position.set(0.4, -0.6, 1);
    this.world.add(sun);
    this.renderer = new THREE.WebGLRenderer({ antialias: true });
    this.renderer.setPixelRatio(Math.min(2, devicePixelRatio));
    place.append(this.renderer.domElement);
    this.eye = new THREE.PerspectiveCamera(42, 4 / 3, 0.01, 10);
    this.eye.up.set(0, 0, 1);
    this.orbit = { yaw: -0.75, pitch: 0.45, distance: 0.8, target: new THREE.Vector3(0.1, -0.05, 0.1) };
    this.arms = new Map(scene.arms.map((arm) => [arm.name, this.build(arm, scene)]));
    const follower = scene.arms.find((arm) => arm.follower) ?? scene.arms[0];
    this.ghost = follower ? this.build(follower, { cameras: [] }, GHOST) : null;
    if (this.ghost) this.ghost.root.visible = false;
    this.follower = follower?.name;
    this.addTable(scene);
    this.addPath();
    this.listen();
    new ResizeObserver(() => this.resize()).observe(place);
    this.resize();
  }

  /** The tree of an arm's links; a joint is a group that turns inside another that is fixed. */
  build(arm, scene, ghost = null) {
    const links = new Map();
    const link = (name) => {
      if (!links.has(name)) links.set(name, new THREE.Group());
      return links.get(name);
    };
    const joints = new Map();
    for (const joint of arm.joints) {
      const fixed = placed(new THREE.Group(), joint);
      const turning = new THREE.Group();
      link(joint.parent).add(fixed);
      fixed.add(turning);
      turning.add(link(joint.child));
      if (joint.moves) joints.set(joint.name, { turning, axis: new THREE.Vector3(...joint.axis) });
    }
    for (const [name, shapes] of Object.entries(arm.shapes)) {
      for (const shape of shapes) {
        const mesh = meshOf(shape, ghost);
        if (mesh) link(name).add(placed(mesh, shape));
      }
    }
    for (const camera of scene.cameras) if (links.has(camera.frame)) links.get(camera.frame).add(frustum(camera));
    const root = link("world");
    this.world.add(root);
    return { root, joints, tip: links.get(arm.tip) };
  }

  addTable(scene) {
    const grid = new THREE.GridHelper(1.2, 24, 0x3a4653, 0x262e37);
    grid.rotation.x = Math.PI / 2;
    grid.position.z = -0.001;
    this.world.add(grid);
    if (!scene.workspace) return;
    const [low, high] = scene.workspace.map((corner) => new THREE.Vector3(...corner));
    this.world.add(new THREE.Box3Helper(new THREE.Box3(low, high), 0x24503a));
  }

  addPath() {
    this.path = [];
    this.line = new THREE.Line(new THREE.BufferGeometry(), new THREE.LineBasicMaterial({ color: 0xe0a030 }));
    this.line.frustumCulled = false;
    this.world.add(this.line);
  }

  /** Move the arms; `ghost` is where the policy will have the follower. An arm without angles is not drawn. */
  show(angles, ghost = null) {
    for (const [name, arm] of this.arms) {
      arm.root.visible = Boolean(angles[name]);
      if (angles[name]) pose(arm, angles[name]);
    }
    if (this.ghost) {
      this.ghost.root.visible = Boolean(ghost);
      if (ghost) pose(this.ghost, ghost);
    }
    this.world.updateMatrixWorld();
    const tip = this.arms.get(this.follower)?.tip;
    if (tip && angles[this.follower]) {
      const point = new THREE.Vector3().setFromMatrixPosition(tip.matrixWorld);
      if (!this.path.length || point.distanceTo(this.path[this.path.length - 1]) > 0.001) {
        this.path.push(point);
        if (this.path.length > PATH_POINTS) this.path.shift();
        this.line.geometry.dispose();
        this.line.geometry = new THREE.BufferGeometry().setFromPoints(this.path);
      }
    }
    this.draw();
  }

  clearPath() { this.path = []; }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      const { yaw, pitch, distance, target } = this.orbit;
      this.eye.position.set(Math.cos(yaw) * Math.cos(pitch), Math.sin(yaw) * Math.cos(pitch), Math.sin(pitch))
        .multiplyScalar(distance).add(target);
      this.eye.lookAt(target);
      this.renderer.render(this.world, this.eye);
    });
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.place;
    if (!width || !height) return;
    this.renderer.setSize(width, height);
    this.eye.aspect = width / height;
    this.eye.updateProjectionMatrix();
    this.draw();
  }

  /** Drag turns, wheel and two fingers zoom. */
  listen() {
    const canvas = this.renderer.domElement;
    const fingers = new Map();
    canvas.style.touchAction = "none";
    const spread = () => {
      const [a, b] = [...fingers.values()];
      return Math.hypot(a.x - b.x, a.y - b.y);
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    });
    canvas.addEventListener("pointermove", (event) => {
      const last = fingers.get(event.pointerId);
      if (!last) return;
      const before = fingers.size === 2 ? spread() : 0;
      const step = { x: event.clientX - last.x, y: event.clientY - last.y };
      fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      if (before) this.zoom(before / Math.max(1, spread()));
      else if (fingers.size === 1) this.turn(step);
    });
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => fingers.delete(event.pointerId));
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(event.deltaY / 800));
    }, { passive: false });
  }

  turn(step) {
    this.orbit.yaw -= step.x / 150;
    this.orbit.pitch = Math.min(1.5, Math.max(-0.2, this.orbit.pitch + step.y / 150));
    this.draw();
  }

  zoom(factor) {
    this.orbit.distance = Math.min(4, Math.max(0.2, this.orbit.distance * factor));
    this.draw();
  }
}

function pose(arm, joints) {
  for (const [name, angle] of Object.entries(joints)) {
    const joint = arm.joints.get(name);
    if (joint) joint.turning.setRotationFromAxisAngle(joint.axis, angle);
  }
}

function placed(thing, { xyz, rpy }) {
  thing.position.set(...xyz);
  thing.rotation.set(rpy[0], rpy[1], rpy[2], "ZYX"); // URDF: fixed axes x, y, z
  return thing;
}

function meshOf(shape, ghost) {
  const geometry = geometryOf(shape);
  if (!geometry) return null;
  const [red, green, blue] = shape.colour;
  const material = ghost === null
    ? new THREE.MeshLambertMaterial({ color: new THREE.Color().setRGB(red, green, blue, THREE.SRGBColorSpace) })
    : new THREE.MeshLambertMaterial({ color: ghost, transparent: true, opacity: 0.35, depthWrite: false });
  return new THREE.Mesh(geometry, material);
}

function geometryOf({ box, cylinder, sphere }) {
  if (box) return new THREE.BoxGeometry(...box.size);
  if (cylinder) return new THREE.CylinderGeometry(cylinder.radius[0], cylinder.radius[0], cylinder.length[0], 20).rotateX(Math.PI / 2);
  if (sphere) return new THREE.SphereGeometry(sphere.radius[0], 16, 12);
  return null;
}

/** What a camera sees, to a hand's breadth before it: z is forward, y down. */
function frustum({ fovy_deg, aspect }) {
  const y = FRUSTUM_M * Math.tan((fovy_deg * Math.PI) / 360);
  const x = y * aspect;
  const corners = [[-x, -y], [x, -y], [x, y], [-x, y]].map(([a, b]) => new THREE.Vector3(a, b, FRUSTUM_M));
  const points = corners.flatMap((corner, index) => [new THREE.Vector3(), corner, corner, corners[(index + 1) % 4]]);
  return new THREE.LineSegments(new THREE.BufferGeometry().setFromPoints(points), new THREE.LineBasicMaterial({ color: 0x9aa7b4 }));
}
