"""Models with a train step of their own, in each backend's own style."""

# Each backend has functions of the same names.
# pyright: reportRedeclaration=false

import keras
from keras import layers, ops, optimizers
from oracles import BACKEND


class OneOptimizer(keras.Model):
    """Minimizes the sum of squared errors."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = layers.Dense(4, "relu"), layers.Dense(2)

    def call(self, x):
        return self.head(self.hidden(x))

    @staticmethod
    def loss_of(y, prediction):
        return ops.sum(ops.square(ops.subtract(prediction, y)))

    def train_step(self, *arguments):
        return _one_optimizer(self, *arguments)


class Gan(keras.Model):
    """Two least-squares players, each with an optimizer; both losses at equal weights.

    The model itself returns the scores of what was generated and of what is real.
    """

    def __init__(self):
        super().__init__()
        self.generator = keras.Sequential(
            [keras.Input((3,)), layers.Dense(8, "relu"), layers.Dense(6)]
        )
        self.critic = keras.Sequential(
            [keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(1)]
        )
        self.own = optimizers.SGD(0.05, momentum=0.9)
        self.own.build(self.generator.trainable_variables)
        # Keras hands a train step on JAX the variables of one optimizer; those of
        # another have to be the model's.
        self.slots = list(self.own.variables) if BACKEND == "jax" else []

    def compile(self, optimizer, **arguments):
        optimizer.build(self.critic.trainable_variables)
        super().compile(optimizer, **arguments)

    def call(self, x):
        noise, real = x
        scores = [self.critic(self.generator(noise)), self.critic(real)]
        return ops.concatenate(scores, axis=-1)

    @staticmethod
    def critic_loss(scores):
        return ops.mean(ops.square(scores[:, 0]) + ops.square(scores[:, 1] - 1))

    @staticmethod
    def generator_loss(scores):
        return ops.mean(ops.square(scores[:, 0] - 1))

    def train_step(self, *arguments):
        return _gan(self, *arguments)


if BACKEND == "tensorflow":
    import tensorflow as tf

    def _one_optimizer(model, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = model.loss_of(y, model(x, training=True))
        variables = model.trainable_variables
        model.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"own": loss}

    def _gan(model, data):
        with tf.GradientTape(persistent=True) as tape:
            scores = model(data[0])
            judged, fooled = model.critic_loss(scores), model.generator_loss(scores)
        for player, loss, optimizer in (
            (model.critic, judged, model.optimizer),
            (model.generator, fooled, model.own),
        ):
            variables = player.trainable_variables
            optimizer.apply(tape.gradient(loss, variables), variables)
        return {"critic": judged, "generator": fooled}


if BACKEND == "torch":
    import torch

    def _one_optimizer(model, data):
        x, y = data
        model.zero_grad()
        loss = model.loss_of(y, model(x, training=True))
        loss.backward()
        variables = model.trainable_variables
        with torch.no_grad():
            model.optimizer.apply([v.value.grad for v in variables], variables)
        return {"own": loss}

    def _gan(model, data):
        scores = model(data[0])
        judged, fooled = model.critic_loss(scores), model.generator_loss(scores)
        gradients = []
        for player, loss in ((model.critic, judged), (model.generator, fooled)):
            values = [variable.value for variable in player.trainable_variables]
            gradients.append(torch.autograd.grad(loss, values, retain_graph=True))
        with torch.no_grad():
            model.optimizer.apply(gradients[0], model.critic.trainable_variables)
            model.own.apply(gradients[1], model.generator.trainable_variables)
        return {"critic": judged, "generator": fooled}


if BACKEND == "jax":
    import jax

    def _one_optimizer(model, state, data):
        trainable, frozen, slots, metrics = state
        x, y = data

        def loss_of(trainable):
            prediction, after = model.stateless_call(trainable, frozen, x)
            return model.loss_of(y, prediction), after

        (loss, frozen), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable)
        trainable, slots = model.optimizer.stateless_apply(
            optimizer_variables=slots,
            grads=gradients,
            trainable_variables=trainable,
        )
        return {"own": loss}, (trainable, frozen, slots, metrics)

    def _gan(model, state, data):
        trainable, frozen, slots, metrics = state
        count = len(model.generator.trainable_variables)
        generator, critic = trainable[:count], trainable[count:]
        position = {id(v): i for i, v in enumerate(model.non_trainable_variables)}
        places = [position[id(slot)] for slot in model.slots]

        def play(generator, critic):
            return model.stateless_call([*generator, *critic], frozen, data[0])[0]

        judged, critic_gradients = jax.value_and_grad(
            lambda critic: model.critic_loss(play(generator, critic))
        )(critic)
        fooled = model.generator_loss(play(generator, critic))
        generator_gradients = jax.grad(
            lambda generator: model.generator_loss(play(generator, critic))
        )(generator)
        critic, slots = model.optimizer.stateless_apply(slots, critic_gradients, critic)
        generator, own_slots = model.own.stateless_apply(
            [frozen[place] for place in places], generator_gradients, generator
        )
        kept = dict(enumerate(frozen)) | dict(zip(places, own_slots, strict=True))
        after = ([*generator, *critic], list(kept.values()), slots, metrics)
        return {"critic": judged, "generator": fooled}, after
