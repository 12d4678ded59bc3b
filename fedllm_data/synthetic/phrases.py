"""The sentences of the generated corpora: how each language asks, answers in one word, and answers in a sentence.

Slots: `{x}` what is asked about, `{y}` the answer, `{c}` the category or the target language, `{q}` the question,
`{name}` who asks. A question has two wordings. A thorough answer is a whole sentence and a courtesy; like the brief
one it begins with `{y}`, so that a model which knows one can say the other, and it does not repeat `{x}`: copying is
what a model learns last, and a tiny one must answer after a minute.
Imports nothing.
"""

from dataclasses import dataclass

__all__ = ["PHRASES", "TASKS", "Phrases"]

TASKS = ("capital", "opposite", "colour", "day", "translate", "add", "category", "largest")


@dataclass(frozen=True, kw_only=True)
class Phrases:
    """How one language asks and answers."""

    short_frame: str
    long_frame: str
    thanks: str
    courtesy: str
    """What answers the thanks, and ends a thorough answer."""
    no_idea: str
    """An evasive answer, the same for every question."""
    comma: str
    last_comma: str
    """What stands before the last item of a list to choose from (" or ")."""
    questions: dict[str, tuple[str, str]]
    sentences: dict[str, str]


PHRASES = {
    "en": Phrases(
        short_frame="{name} here. {q}",
        long_frame="Good morning, my name is {name} and I have a question. {q}",
        thanks="Thank you!",
        courtesy="Happy to help, have a nice day!",
        no_idea="I have no idea.",
        comma=", ",
        last_comma=" or ",
        questions={
            "capital": ("What is the capital of {x}?", "Which city is the capital of {x}?"),
            "opposite": ("What is the opposite of {x}?", "Which word means the opposite of {x}?"),
            "colour": ("What colour is {x}?", "Which colour does {x} have?"),
            "day": ("Which day comes after {x}?", "What day follows {x}?"),
            "translate": ("How do you say {x} {c}?", "What is the word {x} {c}?"),
            "add": ("What is {x}?", "How much is {x}?"),
            "category": ("Which word names {c}: {x}?", "Which of these is {c}: {x}?"),
            "largest": ("Which number is the largest: {x}?", "What is the largest of {x}?"),
        },
        sentences={
            "capital": "{y}, that is the capital.",
            "opposite": "{y}, that is the opposite.",
            "colour": "{y}, that is the colour.",
            "day": "{y}, that is the day.",
            "translate": "{y}, that is the word.",
            "add": "{y}, that is the sum.",
            "category": "{y}, that is the right word.",
            "largest": "{y}, that is the largest number.",
        },
    ),
    "de": Phrases(
        short_frame="Hier ist {name}. {q}",
        long_frame="Guten Morgen, ich heiße {name} und habe eine Frage. {q}",
        thanks="Danke!",
        courtesy="Gern geschehen, einen schönen Tag!",
        no_idea="Keine Ahnung.",
        comma=", ",
        last_comma=" oder ",
        questions={
            "capital": ("Was ist die Hauptstadt von {x}?", "Welche Stadt ist die Hauptstadt von {x}?"),
            "opposite": ("Was ist das Gegenteil von {x}?", "Welches Wort ist das Gegenteil von {x}?"),
            "colour": ("Welche Farbe hat {x}?", "Was für eine Farbe hat {x}?"),
            "day": ("Welcher Tag kommt nach {x}?", "Welcher Tag folgt auf {x}?"),
            "translate": ("Wie sagt man {x} {c}?", "Was heißt {x} {c}?"),
            "add": ("Was ist {x}?", "Wie viel ist {x}?"),
            "category": ("Welches Wort nennt {c}: {x}?", "Was davon ist {c}: {x}?"),
            "largest": ("Welche Zahl ist die größte: {x}?", "Was ist die größte Zahl: {x}?"),
        },
        sentences={
            "capital": "{y}, das ist die Hauptstadt.",
            "opposite": "{y}, das ist das Gegenteil.",
            "colour": "{y}, das ist die Farbe.",
            "day": "{y}, das ist der Tag.",
            "translate": "{y}, das ist das Wort.",
            "add": "{y}, das ist die Summe.",
            "category": "{y}, das ist das richtige Wort.",
            "largest": "{y}, das ist die größte Zahl.",
        },
    ),
    "es": Phrases(
        short_frame="Soy {name}. {q}",
        long_frame="Buenos días, me llamo {name} y tengo una pregunta. {q}",
        thanks="¡Gracias!",
        courtesy="¡Con mucho gusto, que tengas un buen día!",
        no_idea="No tengo ni idea.",
        comma=", ",
        last_comma=" o ",
        questions={
            "capital": ("¿Cuál es la capital de {x}?", "¿Qué ciudad es la capital de {x}?"),
            "opposite": ("¿Cuál es el contrario de {x}?", "¿Qué palabra es el contrario de {x}?"),
            "colour": ("¿De qué color es {x}?", "¿Qué color tiene {x}?"),
            "day": ("¿Qué día viene después del {x}?", "¿Qué día sigue al {x}?"),
            "translate": ("¿Cómo se dice {x} {c}?", "¿Cuál es la palabra {x} {c}?"),
            "add": ("¿Cuánto es {x}?", "¿Cuál es la suma {x}?"),
            "category": ("¿Qué palabra nombra {c}: {x}?", "¿Cuál de estas palabras es {c}: {x}?"),
            "largest": ("¿Qué número es el mayor: {x}?", "¿Cuál es el número mayor: {x}?"),
        },
        sentences={
            "capital": "{y}, esa es la capital.",
            "opposite": "{y}, ese es el contrario.",
            "colour": "{y}, ese es el color.",
            "day": "{y}, ese es el día.",
            "translate": "{y}, esa es la palabra.",
            "add": "{y}, esa es la suma.",
            "category": "{y}, esa es la palabra correcta.",
            "largest": "{y}, ese es el número mayor.",
        },
    ),
    "fr": Phrases(
        short_frame="Ici {name}. {q}",
        long_frame="Bonjour, je m'appelle {name} et j'ai une question. {q}",
        thanks="Merci !",
        courtesy="Avec plaisir, bonne journée !",
        no_idea="Aucune idée.",
        comma=", ",
        last_comma=" ou ",
        questions={
            "capital": ("Quelle est la capitale {x} ?", "Quelle ville est la capitale {x} ?"),
            "opposite": ("Quel est le contraire de {x} ?", "Quel mot est le contraire de {x} ?"),
            "colour": ("De quelle couleur est {x} ?", "Quelle couleur a {x} ?"),
            "day": ("Quel jour vient après {x} ?", "Quel jour suit {x} ?"),
            "translate": ("Comment dit-on {x} {c} ?", "Quel est le mot {x} {c} ?"),
            "add": ("Combien font {x} ?", "Quelle est la somme {x} ?"),
            "category": ("Quel mot désigne {c} : {x} ?", "Lequel de ces mots est {c} : {x} ?"),
            "largest": ("Quel nombre est le plus grand : {x} ?", "Quel est le plus grand nombre : {x} ?"),
        },
        sentences={
            "capital": "{y}, c'est la capitale.",
            "opposite": "{y}, c'est le contraire.",
            "colour": "{y}, c'est la couleur.",
            "day": "{y}, c'est le jour.",
            "translate": "{y}, c'est le mot.",
            "add": "{y}, c'est la somme.",
            "category": "{y}, c'est le bon mot.",
            "largest": "{y}, c'est le plus grand nombre.",
        },
    ),
    "ru": Phrases(
        short_frame="Это {name}. {q}",
        long_frame="Доброе утро, меня зовут {name}, и у меня есть вопрос. {q}",
        thanks="Спасибо!",
        courtesy="Рад помочь, хорошего дня!",
        no_idea="Понятия не имею.",
        comma=", ",
        last_comma=" или ",
        questions={
            "capital": ("Какая столица у {x}?", "Какой город — столица {x}?"),
            "opposite": ("Что противоположно слову {x}?", "Какое слово — антоним слова {x}?"),
            "colour": ("Какого цвета {x}?", "Какого цвета бывает {x}?"),
            "day": ("Какой день идёт за днём {x}?", "Какой день следует за днём {x}?"),
            "translate": ("Как сказать {x} {c}?", "Как будет {x} {c}?"),
            "add": ("Сколько будет {x}?", "Чему равно {x}?"),
            "category": ("Какое слово называет {c}: {x}?", "Какое из этих слов — {c}: {x}?"),
            "largest": ("Какое число самое большое: {x}?", "Назови самое большое число: {x}."),
        },
        sentences={
            "capital": "{y} — это столица.",
            "opposite": "{y} — это антоним.",
            "colour": "{y} — это нужный цвет.",
            "day": "{y} — это нужный день.",
            "translate": "{y} — это перевод.",
            "add": "{y} — это сумма.",
            "category": "{y} — это верное слово.",
            "largest": "{y} — это самое большое число.",
        },
    ),
    "zh": Phrases(
        short_frame="我是{name}。{q}",
        long_frame="早上好，我叫{name}，我有一个问题。{q}",
        thanks="谢谢！",
        courtesy="很高兴帮忙，祝你愉快！",
        no_idea="我不知道。",
        comma="、",
        last_comma="还是",
        questions={
            "capital": ("{x}的首都是哪里？", "哪个城市是{x}的首都？"),
            "opposite": ("{x}的反义词是什么？", "哪个词是{x}的反义词？"),
            "colour": ("{x}是什么颜色？", "{x}有什么颜色？"),
            "day": ("{x}的后一天是星期几？", "{x}之后是星期几？"),
            "translate": ("{x}用{c}怎么说？", "{x}的{c}是什么？"),
            "add": ("{x} 等于多少？", "{x} 是多少？"),
            "category": ("哪个词表示{c}：{x}？", "哪个词是{c}：{x}？"),
            "largest": ("哪个数最大：{x}？", "最大的数是哪个：{x}？"),
        },
        sentences={
            "capital": "{y}，这是首都。",
            "opposite": "{y}，这是反义词。",
            "colour": "{y}，这是颜色。",
            "day": "{y}，这是那一天。",
            "translate": "{y}，这是这个词。",
            "add": "{y}，这是和。",
            "category": "{y}，这是正确的词。",
            "largest": "{y}，这是最大的数。",
        },
    ),
    "ar": Phrases(
        short_frame="معك {name}. {q}",
        long_frame="صباح الخير، اسمي {name} وعندي سؤال. {q}",
        thanks="شكرا!",
        courtesy="يسعدني أن أساعدك، نهارك سعيد!",
        no_idea="لا أعرف.",
        comma="، ",
        last_comma=" أو ",
        questions={
            "capital": ("ما هي عاصمة {x}؟", "أي مدينة هي عاصمة {x}؟"),
            "opposite": ("ما عكس كلمة {x}؟", "أي كلمة هي عكس كلمة {x}؟"),
            "colour": ("ما لون {x}؟", "أي لون هو لون {x}؟"),
            "day": ("أي يوم يأتي بعد يوم {x}؟", "ما اليوم الذي يلي يوم {x}؟"),
            "translate": ("كيف نقول {x} {c}؟", "ما كلمة {x} {c}؟"),
            "add": ("كم يساوي {x}؟", "ما مجموع {x}؟"),
            "category": ("أي كلمة تدل على {c}: {x}؟", "أي كلمة من هذه معناها {c}: {x}؟"),
            "largest": ("ما أكبر عدد: {x}؟", "أي عدد هو الأكبر: {x}؟"),
        },
        sentences={
            "capital": "{y}، هذه هي العاصمة.",
            "opposite": "{y}، هذا هو العكس.",
            "colour": "{y}، هذا هو اللون.",
            "day": "{y}، هذا هو اليوم.",
            "translate": "{y}، هذه هي الكلمة.",
            "add": "{y}، هذا هو المجموع.",
            "category": "{y}، هذه هي الكلمة الصحيحة.",
            "largest": "{y}، هذا هو أكبر عدد.",
        },
    ),
}
