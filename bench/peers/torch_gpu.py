"""PyTorch on a graphics card: what `bench/run.ts`, `bench/train.ts` and `bench/conv_grad.ts` are read beside.

    python3 torch_gpu.py [--batch 32,64] [--runs 20] [--net iresnet50,mobilefacenet]

One JSON line a measurement: the matrix product of 4096 × 4096 × 4096 in f32 (without TF32, and with it) and f16, and for
each net and batch the forward pass and a training step (cross-entropy over 100 classes, SGD with momentum), eager, in
f32 (convolutions without TF32), f16 (forward: halves; training: autocast) and both memory formats. Random weights and
pictures. Medians of synchronised runs after warm-up.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


class Block(nn.Module):
    """iResNet's: norm, 3×3, norm, PReLU, 3×3 (stride), norm; added to its input (He et al. 2016; Duta et al. 2020)."""

    def __init__(self, inside, outside, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inside),
            nn.Conv2d(inside, outside, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outside),
            nn.PReLU(outside),
            nn.Conv2d(outside, outside, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outside),
        )
        self.shortcut = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x):
        return self.body(x) + self.shortcut(x)


def iresnet50():
    layers = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)]
    inside = 64
    for outside, count in ((64, 3), (128, 4), (256, 14), (512, 3)):
        for i in range(count):
            layers.append(Block(inside, outside, 2 if i == 0 else 1))
            inside = outside
    layers += [nn.BatchNorm2d(512), nn.Flatten(), nn.Linear(512 * 49, 512), nn.BatchNorm1d(512)]
    return nn.Sequential(*layers)


def unit(inside, outside, kernel=1, stride=1, padding=0, groups=1, active=True):
    layers = [nn.Conv2d(inside, outside, kernel, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(outside)]
    return layers + ([nn.PReLU(outside)] if active else [])


class Bottleneck(nn.Module):
    """MobileFaceNet's: expand, depthwise 3×3, project (Chen et al. 2018)."""

    def __init__(self, inside, outside, stride, middle, residual):
        super().__init__()
        self.residual = residual
        self.body = nn.Sequential(
            *unit(inside, middle),
            *unit(middle, middle, 3, stride, 1, middle),
            *unit(middle, outside, active=False),
        )

    def forward(self, x):
        return x + self.body(x) if self.residual else self.body(x)


def mobilefacenet():
    layers = unit(3, 64, 3, 2, 1) + unit(64, 64, 3, 1, 1, 64)
    inside = 64
    for outside, stride, middle, count in ((64, 2, 128, 1), (64, 1, 128, 4), (128, 2, 256, 1), (128, 1, 256, 6), (128, 2, 512, 1), (128, 1, 256, 2)):
        for _ in range(count):
            layers.append(Bottleneck(inside, outside, stride, middle, stride == 1))
            inside = outside
    layers += unit(128, 512) + unit(512, 512, 7, groups=512, active=False)
    layers += [nn.Flatten(), nn.Linear(512, 128, bias=False), nn.BatchNorm1d(128)]
    return nn.Sequential(*layers)


def median_ms(work, runs):
    for _ in range(5):
        work()
    torch.cuda.synchronize()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def emit(**line):
    print(json.dumps(line), flush=True)


def product(runs):
    n = 4096
    for name, kind, tf32 in (("f32", torch.float32, False), ("tf32", torch.float32, True), ("f16", torch.float16, False)):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = (torch.randn(n, n, device="cuda", dtype=kind) for _ in range(2))
        ms = median_ms(lambda: a @ b, runs)
        emit(bench="torch.gemm", size=n, precision=name, ms=round(ms, 3), gflops=round(2 * n**3 / ms / 1e6))


def net_times(name, batch, runs):
    torch.manual_seed(1)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    labels = torch.arange(batch, device="cuda") % 100
    for layout in (torch.contiguous_format, torch.channels_last):
        for precision in ("f32", "f16"):
            half = precision == "f16"
            net = {"iresnet50": iresnet50, "mobilefacenet": mobilefacenet}[name]().cuda().to(memory_format=layout)
            x = torch.randn(batch, 3, 112, 112, device="cuda").to(memory_format=layout)
            line = dict(bench="torch", net=name, batch=batch, precision=precision, channels_last=layout == torch.channels_last)
            if batch > 1:
                head = nn.Linear(512 if name == "iresnet50" else 128, 100).cuda()
                optimizer = torch.optim.SGD([*net.parameters(), *head.parameters()], 0.01, 0.9, weight_decay=5e-4)
                scaler = torch.amp.GradScaler("cuda", enabled=half)
                net.train()

                def step():
                    optimizer.zero_grad(set_to_none=True)
                    with torch.autocast("cuda", torch.float16, enabled=half):
                        loss = F.cross_entropy(head(net(x)).float(), labels)
                    scaler.scale(loss).backward()
                    scaler.step(optimizer)
                    scaler.update()

                ms = median_ms(step, runs)
                emit(**line, work="train", ms=round(ms, 2), pictures_per_s=round(batch / ms * 1000))
            net.eval()
            if half:
                net, x = net.half(), x.half()
            with torch.inference_mode():
                ms = median_ms(lambda: net(x), runs)
            emit(**line, work="forward", ms=round(ms, 2), pictures_per_s=round(batch / ms * 1000))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--net", default="iresnet50,mobilefacenet")
    parser.add_argument("--batch", default="32,64")
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    emit(bench="torch.device", name=torch.cuda.get_device_name(), torch=torch.__version__)
    product(options.runs)
    for name in options.net.split(","):
        for batch in options.batch.split(","):
            net_times(name, int(batch), options.runs)


main()
