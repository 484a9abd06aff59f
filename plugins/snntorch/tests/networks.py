"""Spiking networks over time, as the tutorials of snntorch write them."""

from __future__ import annotations

import snntorch as snn
import torch
from snntorch import surrogate, utils
from torch import nn

STEPS = 5


class FeedForward(nn.Module):
    """Two layers; each step passes the membrane to the next."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(6, 10)
        self.lif1 = snn.Leaky(beta=0.9)
        self.fc2 = nn.Linear(10, 3)
        self.lif2 = snn.Leaky(beta=0.8, learn_beta=True, spike_grad=surrogate.fast_sigmoid(10))

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.reset_mem()
        spikes, membranes = [], []
        for step in range(x.shape[0]):
            spk1, mem1 = self.lif1(self.fc1(x[step]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
            membranes.append(mem2)
        return torch.stack(spikes), torch.stack(membranes)


class Hidden(nn.Module):
    """The neurons keep their membranes; the network resets them at the beginning."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(6, 10)
        self.lif1 = snn.Leaky(beta=torch.linspace(0.5, 0.95, 10), init_hidden=True)
        self.fc2 = nn.Linear(10, 3)
        self.lif2 = snn.Leaky(beta=0.8, init_hidden=True, output=True, reset_mechanism="zero")

    def forward(self, x):
        utils.reset(self)
        spikes, membranes = [], []
        for step in range(x.shape[0]):
            spk2, mem2 = self.lif2(self.fc2(self.lif1(self.fc1(x[step]))))
            spikes.append(spk2)
            membranes.append(mem2)
        return torch.stack(spikes), torch.stack(membranes)


class Convolutional(nn.Module):
    """Convolutions and batch norm, with neurons inside blocks."""

    def __init__(self):
        super().__init__()
        self.block1 = _block(1, 4)
        self.block2 = _block(4, 6)
        self.fc = nn.Linear(6 * 2 * 2, 3)
        self.lif = snn.Leaky(beta=0.9, init_hidden=True, output=True)

    def forward(self, x):
        for neuron in (self.block1[-1], self.block2[-1], self.lif):
            neuron.reset_mem()
        spikes, membranes = [], []
        for step in range(x.shape[0]):
            features = self.block2(self.block1(x[step]))
            spk, mem = self.lif(self.fc(features.flatten(1)))
            spikes.append(spk)
            membranes.append(mem)
        return torch.stack(spikes), torch.stack(membranes)


def _block(inputs, outputs):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.MaxPool2d(2),
        snn.Leaky(beta=0.7, init_hidden=True, spike_grad=surrogate.atan(alpha=3)),
    )


class Recurrent(nn.Module):
    """Recurrent connections between all neurons, and from each one to itself."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(6, 10)
        self.lif1 = snn.RLeaky(beta=0.9, linear_features=10)
        self.fc2 = nn.Linear(10, 3)
        self.lif2 = snn.RSynaptic(alpha=0.9, beta=0.8, all_to_all=False, V=torch.full((3,), 0.5))

    def forward(self, x):
        spk1, mem1 = self.lif1.init_rleaky()
        spk2, syn2, mem2 = self.lif2.init_rsynaptic()
        spikes, membranes = [], []
        for step in range(x.shape[0]):
            spk1, mem1 = self.lif1(self.fc1(x[step]), spk1, mem1)
            spk2, syn2, mem2 = self.lif2(self.fc2(spk1), spk2, syn2, mem2)
            spikes.append(spk2)
            membranes.append(mem2)
        return torch.stack(spikes), torch.stack(membranes)


class Lstm(nn.Module):
    """A spiking LSTM, and dropout between the layers."""

    def __init__(self):
        super().__init__()
        self.lstm = snn.SLSTM(6, 6, spike_grad=surrogate.sigmoid(slope=5), threshold=0.1)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(6, 3)
        self.lif = snn.Synaptic(alpha=0.9, beta=0.8, learn_alpha=True, learn_threshold=True)

    def forward(self, x):
        syn1, mem1 = self.lstm.init_slstm()
        syn2, mem2 = self.lif.init_synaptic()
        spikes, membranes = [], []
        for step in range(x.shape[0]):
            spk1, syn1, mem1 = self.lstm(x[step], syn1, mem1)
            spk2, syn2, mem2 = self.lif(self.fc(self.drop(spk1)), syn2, mem2)
            spikes.append(spk2)
            membranes.append(mem2)
        return torch.stack(spikes), torch.stack(membranes)


class ConvolutionalLstm(nn.Module):
    """A spiking convolutional LSTM that keeps its states."""

    def __init__(self):
        super().__init__()
        grad = surrogate.straight_through_estimator()
        self.lstm = snn.SConv2dLSTM(
            1, 3, 3, max_pool=2, spike_grad=grad, threshold=0.05, init_hidden=True
        )
        self.fc = nn.Linear(3 * 4 * 4, 3)
        self.lif = snn.Lapicque(beta=0.6, init_hidden=True, output=True)

    def forward(self, x):
        utils.reset(self)
        spikes, membranes = [], []
        for step in range(x.shape[0]):
            spk, mem = self.lif(self.fc(self.lstm(x[step]).flatten(1)))
            spikes.append(spk)
            membranes.append(mem)
        return torch.stack(spikes), torch.stack(membranes)


class StateInAndOut(nn.Module):
    """The caller passes the states, and gets the new ones."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(6, 10)
        self.lif1 = snn.Synaptic(alpha=0.9, beta=0.8, reset_delay=False)
        self.fc2 = nn.Linear(10, 3)
        self.lif2 = snn.Alpha(alpha=0.9, beta=0.8)

    def forward(self, x, state=None):
        first, second = (None, None), (None, None, None)
        if state is not None:
            first, second = state
        spikes = []
        for step in range(x.shape[0]):
            spk1, *first = self.lif1(self.fc1(x[step]), *first)
            spk2, *second = self.lif2(self.fc2(spk1), *second)
            spikes.append(spk2)
        return torch.stack(spikes), (tuple(first), tuple(second))


def step_by_step():
    """Return a network of one step; the caller loops and resets."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.AvgPool2d(2),
        snn.Leaky(beta=0.9, init_hidden=True, threshold=0.3),
        nn.Flatten(),
        nn.Linear(4 * 3 * 3, 3),
        snn.Leaky(beta=0.9, init_hidden=True, output=True),
    )


def vectors(steps=STEPS, batch=4):
    """Return currents over time."""
    return torch.rand(steps, batch, 6) * 3


def pictures(steps=STEPS, batch=4):
    """Return pictures over time."""
    return torch.rand(steps, batch, 1, 8, 8) * 3
