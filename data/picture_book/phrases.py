"""What is said in the corpus: the phrases, the facts and the small grammar. Plain tables, no logic.

Spoken phrases carry punctuation for the synthesisers; `script.normalise` takes it off for the transcripts.
"""

# The classes of `catalogue.py`.
NOUNS = (
    "dog", "cat", "fish", "bird", "horse", "bear", "car", "boat", "plane", "tree", "flower", "house", "apple", "cake",
    "hat", "book", "clock", "phone", "ball", "heart",
)  # fmt: skip
PICTURE_REPLIES = ("it is {a}.", "that is {a}.", "i see {a}.")
PICTURE_QUESTIONS = (
    "what is this?", "what is that?", "what do you see?", "what is in the picture?",
    "can you tell me what this is?", "what am i looking at?", "tell me what you see.", "do you know what this is?",
    "look at this, what is it?", "what is this called?", "what does the picture show?", "please name this picture.",
)  # fmt: skip

# A family of facts: question templates, the reply's template, and (slot, answer) pairs.
FACTS = {
    "after": (
        ("what comes after {x}?", "which number comes after {x}?", "what number follows {x}?",
         "tell me what comes after {x}.", "count on from {x}."),
        "{y} comes after {x}.",
        (("one", "two"), ("two", "three"), ("three", "four"), ("four", "five"), ("five", "six"),
         ("six", "seven"), ("seven", "eight"), ("eight", "nine"), ("nine", "ten"), ("ten", "eleven")),
    ),
    "before": (
        ("what comes before {x}?", "which number comes before {x}?", "what number is just before {x}?",
         "tell me what comes before {x}.", "count back from {x}."),
        "{y} comes before {x}.",
        (("two", "one"), ("three", "two"), ("four", "three"), ("five", "four"),
         ("six", "five"), ("seven", "six"), ("eight", "seven"), ("nine", "eight")),
    ),
    "legs": (
        ("how many legs does {x} have?", "how many legs are on {x}?", "tell me how many legs {x} has.",
         "do you know how many legs {x} has?", "count the legs of {x}."),
        "{x} has {y} legs.",
        (("a dog", "four"), ("a bird", "two"), ("a spider", "eight"), ("a bee", "six"), ("a fish", "no")),
    ),
    "colour": (
        ("what colour is {x}?", "which colour does {x} have?", "tell me the colour of {x}.",
         "do you know the colour of {x}?", "what is the colour of {x}?"),
        "{x} is {y}.",
        (("the sky", "blue"), ("the grass", "green"), ("the snow", "white"), ("a banana", "yellow"),
         ("a tomato", "red"), ("the night", "black"), ("a pig", "pink")),
    ),
    "opposite": (
        ("what is the opposite of {x}?", "tell me the opposite of {x}.", "which word is the opposite of {x}?",
         "do you know the opposite of {x}?", "what is not {x}?"),
        "the opposite of {x} is {y}.",
        (("hot", "cold"), ("big", "small"), ("fast", "slow"), ("wet", "dry"), ("happy", "sad"),
         ("old", "young"), ("up", "down"), ("full", "empty")),
    ),
    "sound": (
        ("what does {x} say?", "what sound does {x} make?", "tell me what {x} says.",
         "how does {x} talk?", "do you know what {x} says?"),
        "{x} says {y}.",
        (("a dog", "woof"), ("a cat", "meow"), ("a cow", "moo"), ("a duck", "quack"), ("a sheep", "baa"),
         ("a lion", "roar")),
    ),
    "day": (
        ("what day comes after {x}?", "which day follows {x}?", "tell me the day after {x}.",
         "what is the day after {x}?", "do you know the day after {x}?"),
        "the day after {x} is {y}.",
        (("monday", "tuesday"), ("tuesday", "wednesday"), ("wednesday", "thursday"), ("thursday", "friday"),
         ("friday", "saturday"), ("saturday", "sunday"), ("sunday", "monday")),
    ),
    "baby": (
        ("what is a baby {x}?", "what do you call a baby {x}?", "tell me the name of a baby {x}.",
         "which word means a baby {x}?", "do you know what a baby {x} is?"),
        "a baby {x} is a {y}.",
        (("dog", "puppy"), ("cat", "kitten"), ("sheep", "lamb"), ("cow", "calf")),
    ),
}  # fmt: skip

# (what the user says, what is answered)
GREETINGS = (
    ("hello.", "hello there."), ("hi there.", "hello there."), ("hey, hello.", "hello there."),
    ("good morning.", "good morning to you."), ("a very good morning.", "good morning to you."),
    ("good night.", "good night, sleep well."), ("i am going to bed, good night.", "good night, sleep well."),
    ("how are you?", "i am fine, thank you."), ("how are you today?", "i am fine, thank you."),
    ("thank you.", "you are welcome."), ("thank you very much.", "you are welcome."),
    ("goodbye.", "goodbye, see you soon."), ("okay, goodbye.", "goodbye, see you soon."),
    ("nice to meet you.", "nice to meet you too."), ("hi, nice to meet you.", "nice to meet you too."),
    ("who are you?", "i am a talking picture book."), ("tell me who you are.", "i am a talking picture book."),
)  # fmt: skip
STOPS = (
    "stop.", "stop, please.", "wait.", "okay, stop.", "hold on.", "that is enough.", "wait a moment.",
    "please stop talking.", "no, stop.", "stop it, please.", "be quiet, please.", "hang on a moment.",
)  # fmt: skip
HELD_STOPS = ("okay, stop please.", "no, wait.", "please wait a moment.", "stop, that is enough.")
BACKCHANNELS = ("mm-hm.", "uh-huh.", "yeah.", "right.", "i see.", "okay.", "sure.", "yes.")
SIDE_TALK = (
    "honey, did you feed the dog?", "could you close the door?", "where did you put my keys?",
    "dinner is ready, come and eat.", "i will call you back later.", "turn the radio down, please.",
    "did you do your homework?", "the bus is late again.", "mom, where is my hat?", "put your shoes on.",
    "we have to go soon.", "can you pass the bread?", "i think it is going to rain.", "who left the light on?",
    "your phone is ringing.", "let the cat out, please.", "he is not at home.", "see you at the office tomorrow.",
    "when is dinner ready?", "we need more milk.",
)  # fmt: skip
HELD_SIDE_TALK = (
    "honey, where is my phone?", "could you let the dog out?", "did you close the door?", "dinner is late again.",
    "we have to call the office.", "put the radio on, please.",
)  # fmt: skip

# Longer answers, three to six seconds, that leave something to interrupt.
TELL_TEMPLATES = ("tell me about the {x}.", "what do you know about the {x}?", "can you talk about the {x}?",
                  "please tell me a story about the {x}.")  # fmt: skip
TELL = {
    "dog": "the dog is a good friend. it runs in the garden all day, and at night it sleeps by the door.",
    "cat": "the cat is small and soft. it sits under the table all day, and at night it looks for a mouse.",
    "fish": "the fish lives in the water. it swims up and down all day, and it has no legs at all.",
    "bird": "the bird has two legs and two wings. it sings in the tree, and it flies home in the rain.",
    "car": "the car is red and very fast. it takes us to the office, and then it takes us home again.",
    "boat": "the boat is on the water. an old man sits in the boat, and he looks for a big fish.",
    "tree": "the tree is old and very big. a small bird lives in the tree, and it sings all day long.",
    "flower": "the flower is in the garden. it is red and yellow, and a little bee comes to see it.",
    "house": "the house is big and white. we eat and sleep in the house, and the dog sits by the door.",
    "apple": "the apple is red or green. it comes from a tree, and a hungry horse likes to eat it.",
    "horse": "the horse has four legs and runs very fast. it eats the green grass, and it sleeps at night.",
    "bear": "the bear is big and brown. it eats fish from the water, and it sleeps when the snow comes.",
    "key": "the key is small and old. it opens the door of the house, so please do not lose it.",
    "hat": "the hat is on my head. it is good in the sun and in the rain, and my mom likes it too.",
    "book": "the book has many pictures. a boy and a girl sit by the tree, and they look at the book.",
    "clock": "the clock tells us when it is night and when it is day. it is late now, says the clock.",
    "moon": "the moon is white and far away. you see it in the sky at night, and the sun comes after it.",
    "cake": "the cake is sweet and big. we eat the cake with milk, and then there is no more cake.",
}
DO_TEMPLATES = ("{x}.", "please {x}.", "can you {x}?", "i want you to {x}.")
DO = {
    "count to ten": "one, two, three, four, five, six, seven, eight, nine, ten.",
    "count down from ten": "ten, nine, eight, seven, six, five, four, three, two, one.",
    "say the days": "monday, tuesday, wednesday, thursday, friday, saturday, sunday.",
    "name some colours": "red, blue, green, yellow, black, white, pink, and brown.",
    "name some animals": "a dog, a cat, a fish, a bird, a horse, a bear, a cow, and a duck.",
    "name some things": "a car, a boat, a house, a key, a hat, a book, a clock, and a cake.",
    "sing a song": "the red bird sings, the blue bird sings, and all day long the garden sings.",
}

# The grammar of the sentences to repeat.
REPEAT_TEMPLATES = ("repeat after me, {x}", "say, {x}", "please say, {x}", "can you repeat, {x}", "repeat this, {x}")
ADJECTIVES = ("red", "blue", "big", "small", "old", "happy", "little", "green", "white", "sleepy", "hungry", "brown")
ANIMALS = ("dog", "cat", "fish", "bird", "horse", "bear", "duck", "cow", "boy", "girl", "man", "lion")
VERBS = ("runs", "sleeps", "sings", "walks", "jumps", "plays", "swims", "sits")
PLACES = ("home", "outside", "at night", "in the house", "by the tree", "in the rain", "under the table", "all day",
          "near the boat", "in the garden")  # fmt: skip
THINGS = ("car", "boat", "book", "hat", "key", "apple", "cake", "cup", "clock", "flower", "shoe", "phone")
PEOPLE = ("i", "we", "you", "they")
ACTIONS = ("see", "like", "want", "have", "need")
SENTENCES = (
    "the {adjective} {animal} {verb} {place}.",
    "{person} {action} {a adjective} {thing}.",
    "my {animal} has {a adjective} {thing}.",
    "the {thing} and the {thing} are {adjective}.",
    "put the {adjective} {thing} {place}.",
)
