"""MTCNN and iResNet in plain PyTorch on the processor: what bench/annotate_peers.ts measures wfr's stages beside.

    echo photo.jpg | python3 torch_pipeline.py detector.safetensors recogniser.safetensors 50 out.jpg

Reads a picture's path a line and answers each with one JSON line: wall and processor milliseconds of every stage, the
faces found, how many candidates each net was asked about. The last two arguments are the smallest face in pixels and
where the annotated picture goes. The cascade's arithmetic is facenet-pytorch's (area resize, thresholds .6 .7 .7, factor
.709, its suppression), crops and batches are made as it makes them; weights are wfr's safetensors. Needs torch, numpy, PIL.
"""

import json
import os
import sys
import time

# Threads that spin while they wait would be counted as work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

THRESHOLDS = (0.6, 0.7, 0.7)
FACTOR = 0.709
TEMPLATE = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)


class Net:
    """Layers by the names of their weights."""

    def __init__(self, path, prefix=""):
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            body = file.read()
        self.weights = {}
        for name, entry in header.items():
            if name == "__metadata__" or not name.startswith(prefix):
                continue
            kind = {"F32": np.float32, "F16": np.float16}[entry["dtype"]]
            begin, end = entry["data_offsets"]
            values = np.frombuffer(body[begin:end], kind).astype(np.float32)
            self.weights[name[len(prefix) :]] = torch.from_numpy(values.reshape(entry["shape"]))

    def conv(self, name, x, stride=1, padding=0):
        w = self.weights
        return F.conv2d(x, w[name + ".weight"], w.get(name + ".bias"), stride, padding)

    def prelu(self, name, x):
        return F.prelu(x, self.weights[name + ".weight"])

    def dense(self, name, x):
        return F.linear(x, self.weights[name + ".weight"], self.weights[name + ".bias"])

    def norm(self, name, x):
        mean, var, weight, bias = (
            self.weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias, eps=1e-5)


def pool(x, size):
    return F.max_pool2d(x, size, 2, ceil_mode=True)


def pnet(net, x):
    x = pool(net.prelu("prelu1", net.conv("conv1", x)), 2)
    x = net.prelu("prelu2", net.conv("conv2", x))
    x = net.prelu("prelu3", net.conv("conv3", x))
    return net.conv("conv4_1", x).softmax(1)[0, 1], net.conv("conv4_2", x)[0]


def rnet(net, x):
    x = pool(net.prelu("prelu1", net.conv("conv1", x)), 3)
    x = pool(net.prelu("prelu2", net.conv("conv2", x)), 3)
    x = net.prelu("prelu3", net.conv("conv3", x))
    x = net.prelu("prelu4", net.dense("dense4", x.flatten(1)))
    return net.dense("dense5_1", x).softmax(1)[:, 1].numpy(), net.dense("dense5_2", x).numpy()


def onet(net, x):
    x = pool(net.prelu("prelu1", net.conv("conv1", x)), 3)
    x = pool(net.prelu("prelu2", net.conv("conv2", x)), 3)
    x = pool(net.prelu("prelu3", net.conv("conv3", x)), 2)
    x = net.prelu("prelu4", net.conv("conv4", x))
    x = net.prelu("prelu5", net.dense("dense5", x.flatten(1)))
    prob = net.dense("dense6_1", x).softmax(1)[:, 1]
    return prob.numpy(), net.dense("dense6_2", x).numpy(), net.dense("dense6_3", x).numpy()


def iresnet(net, x):
    x = net.prelu("prelu", net.norm("bn1", net.conv("conv1", x, padding=1)))
    for stage in range(1, 5):
        for i in range(100):
            name = f"layer{stage}.{i}"
            if name + ".conv1.weight" not in net.weights:
                break
            stride = 2 if i == 0 else 1
            y = net.conv(name + ".conv1", net.norm(name + ".bn1", x), padding=1)
            y = net.prelu(name + ".prelu", net.norm(name + ".bn2", y))
            y = net.norm(name + ".bn3", net.conv(name + ".conv2", y, stride, 1))
            if i == 0:
                x = net.norm(name + ".downsample.1", net.conv(name + ".downsample.0", x, stride))
            x = y + x
    return net.norm("features", net.dense("fc", net.norm("bn2", x).flatten(1)))


def suppress(boxes, scores, threshold, smaller=False):
    """Greedy suppression, best first; over the union, or over the smaller box with both borders counted."""
    one = 1 if smaller else 0
    x1, y1, x2, y2 = boxes.T
    areas = (x2 - x1 + one) * (y2 - y1 + one)
    order = np.argsort(-scores, kind="stable")
    kept = []
    while order.size > 0:
        best, order = order[0], order[1:]
        kept.append(best)
        w = np.minimum(x2[best], x2[order]) - np.maximum(x1[best], x1[order]) + one
        h = np.minimum(y2[best], y2[order]) - np.maximum(y1[best], y1[order]) + one
        both = np.maximum(w, 0) * np.maximum(h, 0)
        whole = np.minimum(areas[best], areas[order]) if smaller else areas[best] + areas[order] - both
        order = order[both <= threshold * whole]
    return np.array(kept, int)


def calibrate(boxes, regressions, one):
    w = boxes[:, 2:3] - boxes[:, 0:1] + one
    h = boxes[:, 3:4] - boxes[:, 1:2] + one
    return boxes + regressions * np.hstack([w, h, w, h])


def squares(boxes):
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.max(1, keepdims=True)
    corner = boxes[:, :2] + size / 2 - side / 2
    return np.hstack([corner, corner + side])


def normalised(x):
    return (x - 127.5) / 128


def propose(net, picture, min_face):
    """P-Net over the pyramid."""
    height, width = picture.shape[2:]
    scale = 12 / min_face
    short = min(height, width) * scale
    levels = []
    while short >= 12:
        size = (int(height * scale + 1), int(width * scale + 1))
        prob, box = pnet(net, normalised(F.interpolate(picture, size, mode="area")))
        rows, columns = torch.nonzero(prob >= THRESHOLDS[0], as_tuple=True)
        scores = prob[rows, columns].numpy()
        regressions = box[:, rows, columns].numpy().T
        cells = np.stack([columns.numpy(), rows.numpy()], 1)
        boxes = np.hstack([np.floor((2 * cells + 1) / scale), np.floor((2 * cells + 12) / scale)])
        kept = suppress(boxes, scores, 0.5)
        levels.append((boxes[kept], scores[kept], regressions[kept]))
        scale *= FACTOR
        short *= FACTOR
    if not levels:
        return np.zeros((0, 4))
    boxes, scores, regressions = (np.concatenate(part) for part in zip(*levels))
    kept = suppress(boxes, scores, 0.7)
    return squares(calibrate(boxes[kept], regressions[kept], 0))


def crops(picture, boxes, size):
    """The parts of the boxes inside the picture, one by one as facenet-pytorch cuts them; which boxes had one."""
    height, width = picture.shape[2:]
    parts, inside = [], []
    for i, (x1, y1, x2, y2) in enumerate(np.trunc(boxes).astype(int)):
        left, top, right, bottom = max(1, x1) - 1, max(1, y1) - 1, min(width, x2), min(height, y2)
        if right > left and bottom > top:
            parts.append(F.interpolate(picture[:, :, top:bottom, left:right], (size, size), mode="area"))
            inside.append(i)
    return normalised(torch.cat(parts)) if parts else torch.zeros(0, 3, size, size), boxes[inside]


def refine(net, picture, boxes):
    x, boxes = crops(picture, boxes, 24)
    if len(x) == 0:
        return boxes
    scores, regressions = rnet(net, x)
    passed = scores > THRESHOLDS[1]
    boxes, scores, regressions = boxes[passed], scores[passed], regressions[passed]
    kept = suppress(boxes, scores, 0.7)
    return squares(calibrate(boxes[kept], regressions[kept], 1))


def finish(net, picture, boxes):
    x, boxes = crops(picture, boxes, 48)
    if len(x) == 0:
        return boxes, np.zeros((0, 5, 2))
    scores, regressions, points = onet(net, x)
    passed = scores > THRESHOLDS[2]
    boxes, scores, regressions, points = boxes[passed], scores[passed], regressions[passed], points[passed]
    size = boxes[:, 2:] - boxes[:, :2] + 1
    landmarks = np.stack([points[:, :5], points[:, 5:]], 2) * size[:, None] + boxes[:, None, :2] - 1
    boxes = calibrate(boxes, regressions, 1)
    kept = suppress(boxes, scores, 0.7, smaller=True)
    return boxes[kept], landmarks[kept]


def align(picture, landmarks):
    """Faces warped to the template by the similarity of least squares, and their mirror images."""
    height, width = picture.shape[2:]
    y, x = np.mgrid[:112, :112]
    grids = []
    for points in landmarks:
        centre, target = points.mean(0), TEMPLATE.mean(0)
        p, q = (points - centre) @ (1, 1j), (TEMPLATE - target) @ (1, 1j)
        turn = (p.conj() * q).sum() / (abs(p) ** 2).sum()
        at = ((x - target[0]) + 1j * (y - target[1])) / turn + centre @ (1, 1j)
        grids.append(np.stack([2 * at.real / (width - 1) - 1, 2 * at.imag / (height - 1) - 1], 2))
    grid = torch.from_numpy(np.stack(grids).astype(np.float32))
    faces = F.grid_sample(picture.expand(len(grids), -1, -1, -1), grid, align_corners=True)
    faces = (faces - 127.5) / 127.5
    return torch.cat([faces, faces.flip(3)])


def recognise(net, faces):
    plain, mirrored = iresnet(net, faces).chunk(2)
    return F.normalize(plain + mirrored)


def draw(image, boxes, landmarks, out):
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default()
    for box, points in zip(boxes, landmarks):
        width = box[2] - box[0]
        pen.rectangle(tuple(box), outline="white", width=max(1, round(width / 30)))
        radius = max(1, width / 45)
        for x, y in points:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill="white")
        pen.text((box[0], box[3]), "Name 1.00", fill="white", font=font)
    image.save(out, quality=92)


class Clock:
    def __init__(self):
        self.stages = {}
        self.start()

    def start(self):
        self.wall, self.processor = time.perf_counter(), time.process_time()

    def mark(self, stage):
        wall, processor = time.perf_counter(), time.process_time()
        self.stages[stage] = [1e3 * (wall - self.wall), 1e3 * (processor - self.processor)]
        self.start()


def annotate(nets, path, min_face, out):
    clock = Clock()
    image = Image.open(path).convert("RGB")
    pixels = np.asarray(image)
    clock.mark("decode")
    picture = torch.tensor(pixels).permute(2, 0, 1)[None].float()
    clock.mark("upload")
    proposed = propose(nets["pnet"], picture, min_face)
    clock.mark("pnet")
    refined = refine(nets["rnet"], picture, proposed)
    clock.mark("rnet")
    boxes, landmarks = finish(nets["onet"], picture, refined)
    clock.mark("onet")
    embeddings = np.zeros((0, 512))
    if len(boxes) > 0:
        faces = align(picture, landmarks)
        clock.mark("align")
        embeddings = recognise(nets["recogniser"], faces).numpy()
        clock.mark("recognise")
    draw(image, boxes, landmarks, out)
    clock.mark("draw_encode")
    return {
        "stages": clock.stages,
        "proposed": len(proposed),
        "refined": len(refined),
        "boxes": boxes.tolist(),
        "landmarks": landmarks.tolist(),
        "embeddings": embeddings.tolist(),
    }


def main():
    detector, recogniser, min_face, out = sys.argv[1:]
    torch.set_num_threads(os.cpu_count())
    nets = {part: Net(detector, part + ".") for part in ("pnet", "rnet", "onet")}
    nets["recogniser"] = Net(recogniser)
    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    with torch.inference_mode():
        for line in sys.stdin:
            print(json.dumps(annotate(nets, line.rstrip("\n"), float(min_face), out)), flush=True)


main()
