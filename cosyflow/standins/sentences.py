"""What the demo corpus says: sentences of this project. Where spelling and speech differ: "as spoken | as printed"."""

from __future__ import annotations

SENTENCES = """
The ferry left the harbour before the fog had lifted.
She kept a list of every bird that crossed the garden.
Bread was cheap that winter, but nobody had any coal.
Put the kettle on, and tell me what the doctor said. | Put the kettle on, and tell me what the Dr. said.
The old clock in the hall is slow by eleven minutes. | The old clock in the hall is slow by 11 minutes.
Two boys were mending a net on the steps of the chapel.
I never liked the colour of that house, he answered.
A letter came on Monday, and another came on Friday.
The road climbs for a mile and then follows the river.
Nobody remembers who planted the walnut tree.
You may keep the lantern until the end of the week.
Her brother plays the cello, badly but with great joy.
They counted forty seven sheep and one very proud goat. | They counted 47 sheep and one very proud goat.
The miller opened the gate and the water rushed in.
Why would anyone paint a boat in the middle of the night?
Snow lay on the roofs, and the whole street was quiet.
Take the second turning after the bridge, then ask again.
The teacher wrote one word on the board and sat down.
His coat was dry, although it had rained since noon.
There are three keys, and none of them fits this door. | There are 3 keys, and none of them fits this door.
The baker whistles when he thinks that we are asleep.
A fox had been in the yard, for the hens were restless.
We sold the piano and bought a map of the islands.
In the evening the wind turned and the boats came home.
Mister Lowe paid the driver and walked up the hill. | Mr. Lowe paid the driver and walked up the hill.
The wheel is broken, so we shall have to carry it.
Every window on the north side had been left open.
She laughed, folded the newspaper and poured the tea.
The train to the coast stops here only in summer.
His hands were cold, and the rope was stiff with salt.
Can you hear the bells from the far side of the valley?
My aunt collects spoons, buttons and very old stamps.
The judge asked for silence and a glass of water.
Behind the barn there is a well with a wooden cover.
They argued about the price of oats until it was dark.
The cat sleeps on the ledger, so I cannot write today.
A young man in a green hat asked the way to the mill.
The soup was thin, but the company was excellent.
Nothing grows on that side of the wall except moss.
He read the last page first, as he always did.
The school has ninety pupils and a leaking roof. | The school has 90 pupils and a leaking roof.
Light the fire, please, the guests will be here soon.
The captain drew a circle around the smallest island.
Her answer was short, clear and not at all polite.
On the ninth of May the swallows came back. | On the 9th of May the swallows came back.
The carpenter measured the table twice and cut it once.
No one had told the gardener about the wedding.
Far below us a dog barked, and then another one.
The ink was still wet when the messenger arrived.
Give the horse some water and let him rest an hour.
We found a blue bottle and half of a silver coin.
The path is steep, but the view is worth the trouble.
She sings in the kitchen and hums in the cellar.
The postman brought a parcel that ticked like a watch.
Our neighbour keeps bees and does not lock her door.
All night long the rain drummed on the iron roof.
A painter lived here once, and a spy after him.
The bridge was closed, so we waited for the ferry.
He has a cousin in every town along the river.
The children built a castle out of empty boxes.
Was it the tall brother or the short one who called?
The lamp went out, and for a moment nobody spoke.
Apples fell into the long grass with a soft sound.
The tailor lost his thimble and blamed the cat.
It takes five hours to walk around the lake. | It takes 5 hours to walk around the lake.
Missus Hale closed the shop and counted the candles. | Mrs. Hale closed the shop and counted the candles.
The first snow melted before it reached the ground.
Somewhere in this drawer there is a pair of scissors.
The ship carried timber, wool and a hundred clocks. | The ship carried timber, wool and 100 clocks.
The dog waited at the gate until the rain stopped.
She wrote her name on the wall of the old mill.
They sold the boat and walked home along the coast.
Who opened the window in the middle of the night?
The gardener counted the apples and closed the gate.
A letter from the islands arrived before noon.
The old man in the green hat whistles to his horse.
Nobody heard the bells, for the wind had turned.
Tell the driver to wait on the far side of the bridge.
The well behind the school is deep and very cold.
My brother keeps a list of every clock in the house.
The road to the harbour was closed until Friday.
Water rushed over the steps and into the cellar.
The doctor laughed and asked for another glass of tea. | The Dr. laughed and asked for another glass of tea.
In summer the ferry stops at the smallest island.
He paid for the bread and forgot the newspaper.
The bees were restless, although the night was quiet.
"""


def sentences() -> list[tuple[str, str]]:
    """Every sentence as it is spoken (normalized) and as it is printed (original)."""
    pairs = []
    for line in SENTENCES.strip().splitlines():
        spoken, _, printed = line.partition(" | ")
        pairs.append((spoken, printed or spoken))
    return pairs
